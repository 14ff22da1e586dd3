"""Llama and similar models: grouped queries; biases and a tied head according to the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from colbuild.arch import usual_block as usual
from colbuild.arch.gguf_form import Facts, GGUFForm
from colbuild.arch.table import Architecture, GraphFacts
from colbuild.arch.value_kinds import FLAG, SHARE, optional


def _from_gguf(facts: Facts, _: Mapping[str, Any]) -> Mapping[str, Any]:
    return {
        "hidden_act": "silu",
        "attention_bias": facts.has("blk.0.attn_q.bias"),
        "mlp_bias": facts.has("blk.0.ffn_up.bias"),
    }


TABLE: Final = Architecture(
    name="llama",
    model_class="LlamaForCausalLM",
    config_keys=usual.KEYS,
    flags={"tie_word_embeddings": False, "attention_bias": False, "mlp_bias": False},
    settings={**usual.SETTINGS, "attention_bias": FLAG, "mlp_bias": FLAG, "attention_dropout": optional(SHARE)},
    divides_hidden=True,
    block={**usual.PARTS, **usual.BEFORE},
    graph=GraphFacts(grouped=True, genai="llama"),
    gguf=GGUFForm("llama", _from_gguf, interleaved=("query", "key")),
    prefix=usual.PREFIX,
    buffers=usual.BUFFERS,
    tensors=usual.table(
        usual.norm("input_layernorm"),
        *usual.ATTENTION,
        *usual.attention_biases(),
        usual.norm("post_attention_layernorm"),
        *usual.MLP,
        *usual.MLP_BIASES,
    ),
)
