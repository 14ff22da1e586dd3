"""Granite: as llama, with four numbers that embeddings, scores, branches and logits are multiplied or divided by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from colbuild.arch import usual_block as usual
from colbuild.arch.gguf_form import Facts, GGUFForm
from colbuild.arch.setting_kinds import WIDTH
from colbuild.arch.table import Architecture, GraphFacts, Scalar
from colbuild.arch.value_kinds import FLAG, real

_NUMBER: Final = real(1e-6, 1e6)


def _from_gguf(facts: Facts, config: Mapping[str, Any]) -> Mapping[str, Any]:
    return {
        "hidden_act": "silu",
        "attention_bias": facts.has("blk.0.attn_q.bias"),
        "mlp_bias": facts.has("blk.0.ffn_up.bias"),
        "embedding_multiplier": facts.real("embedding_scale", 1.0),
        "attention_multiplier": facts.real("attention.scale", config["head_dim"] ** -0.5),
        "residual_multiplier": facts.real("residual_scale", 1.0),
        "logits_scaling": facts.real("logit_scale", 1.0),
    }


TABLE: Final = Architecture(
    name="granite",
    model_class="GraniteForCausalLM",
    config_keys=usual.KEYS,
    flags={"tie_word_embeddings": False, "attention_bias": False, "mlp_bias": False},
    settings={
        **usual.SETTINGS,
        "head_dim": WIDTH,
        "attention_bias": FLAG,
        "mlp_bias": FLAG,
        "embedding_multiplier": _NUMBER,
        "attention_multiplier": _NUMBER,
        "residual_multiplier": _NUMBER,
        "logits_scaling": _NUMBER,
    },
    scalars={
        "embedding": Scalar("embedding_multiplier", 1.0),
        "attention": Scalar("attention_multiplier", 1.0),
        "branch": Scalar("residual_multiplier", 1.0),
        "logits": Scalar("logits_scaling", 1.0),
    },
    block={**usual.PARTS, **usual.BEFORE},
    graph=GraphFacts(grouped=True, genai="granite"),
    gguf=GGUFForm("granite", _from_gguf, interleaved=("query", "key"), tokenizer_of="llama"),
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
