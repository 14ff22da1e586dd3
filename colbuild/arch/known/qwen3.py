"""Qwen 3: norms on each head's queries and keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from colbuild.arch import usual_block as usual
from colbuild.arch.gguf_form import Facts, GGUFForm
from colbuild.arch.setting_kinds import WIDTH, WINDOW
from colbuild.arch.table import FULL, Architecture, GraphFacts
from colbuild.arch.value_kinds import FLAG, choice, optional, several, whole


def _from_gguf(facts: Facts, _: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"hidden_act": "silu", "use_sliding_window": False, "attention_bias": facts.has("blk.0.attn_q.bias")}


TABLE: Final = Architecture(
    name="qwen3",
    model_class="Qwen3ForCausalLM",
    config_keys=usual.KEYS,
    flags={"tie_word_embeddings": False, "attention_bias": False},
    settings={
        **usual.SETTINGS,
        "head_dim": WIDTH,
        "use_sliding_window": FLAG,
        "sliding_window": optional(WINDOW),
        "max_window_layers": whole(0, 1 << 16),
        "layer_types": optional(several(choice(FULL))),
        "attention_bias": FLAG,
    },
    defaults={"kv_heads": 32, "head_dim": 128},
    layer_kinds=(FULL,),
    accepts={"use_sliding_window": False},
    block={**usual.PARTS, **usual.BEFORE, **usual.INSIDE},
    graph=GraphFacts(grouped=True, genai="qwen3"),
    gguf=GGUFForm("qwen3", _from_gguf),
    prefix=usual.PREFIX,
    buffers=usual.BUFFERS,
    tensors=usual.table(
        usual.norm("input_layernorm"),
        *usual.ATTENTION,
        *usual.attention_biases(),
        *usual.head_norms(),
        usual.norm("post_attention_layernorm"),
        *usual.MLP,
    ),
)
