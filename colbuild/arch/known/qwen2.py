"""Qwen 2: as llama, with biases on queries, keys and values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from colbuild.arch import usual_block as usual
from colbuild.arch.gguf_form import Facts, GGUFForm
from colbuild.arch.setting_kinds import WIDTH, WINDOW
from colbuild.arch.table import FULL, Architecture, GraphFacts
from colbuild.arch.value_kinds import FLAG, choice, optional, several, whole


def _from_gguf(facts: Facts, _: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"hidden_act": "silu", "use_sliding_window": False}


TABLE: Final = Architecture(
    name="qwen2",
    model_class="Qwen2ForCausalLM",
    config_keys=usual.KEYS,
    flags={"tie_word_embeddings": False},
    settings={
        **usual.SETTINGS,
        "head_dim": WIDTH,
        "use_sliding_window": FLAG,
        "sliding_window": optional(WINDOW),
        "max_window_layers": whole(0, 1 << 16),
        "layer_types": optional(several(choice(FULL))),
    },
    defaults={"kv_heads": 32},
    layer_kinds=(FULL,),
    accepts={"use_sliding_window": False},
    block={**usual.PARTS, **usual.BEFORE},
    graph=GraphFacts(grouped=True, genai="qwen2"),
    gguf=GGUFForm("qwen2", _from_gguf),
    prefix=usual.PREFIX,
    buffers=usual.BUFFERS,
    tensors=usual.table(
        usual.norm("input_layernorm"),
        *usual.ATTENTION,
        *usual.attention_biases(None, output=False),
        usual.norm("post_attention_layernorm"),
        *usual.MLP,
    ),
)
