"""OLMo 2: norms after attention and FFN and none before them; one norm over the queries of all heads, one over the keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from colbuild.arch import usual_block as usual
from colbuild.arch.gguf_form import Facts, GGUFForm
from colbuild.arch.setting_kinds import WIDTH
from colbuild.arch.table import Architecture, GraphFacts, Role
from colbuild.arch.value_kinds import FLAG


def _from_gguf(facts: Facts, _: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"hidden_act": "silu", "attention_bias": facts.has("blk.0.attn_q.bias")}


TABLE: Final = Architecture(
    name="olmo2",
    model_class="Olmo2ForCausalLM",
    config_keys=usual.KEYS,
    flags={"tie_word_embeddings": False, "attention_bias": False},
    settings={**usual.SETTINGS, "head_dim": WIDTH, "attention_bias": FLAG},
    floating_norms=True,
    block={
        **usual.PARTS,
        **usual.INSIDE,
        "attention_end": "post_attention_layernorm",
        "ffn_end": "post_feedforward_layernorm",
    },
    graph=GraphFacts(grouped=True),
    gguf=GGUFForm("olmo2", _from_gguf, tokenizer_of="llama"),
    prefix=usual.PREFIX,
    buffers=usual.BUFFERS,
    tensors=usual.table(
        *usual.ATTENTION,
        *usual.attention_biases(),
        *usual.head_norms("heads*head_dim", "kv_heads*head_dim"),
        usual.norm("post_attention_layernorm", Role.BRANCH_NORM),
        *usual.MLP,
        usual.norm("post_feedforward_layernorm", Role.BRANCH_NORM),
    ),
)
