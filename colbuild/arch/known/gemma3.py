"""Gemma 3, its part for text: four norms a block, embeddings times the root of the hidden width, layers of two kinds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from colbuild.arch import usual_block as usual
from colbuild.arch.gguf_form import Facts, GGUFForm
from colbuild.arch.setting_kinds import ACTIVATION, HEADS, LAYERS, THETA, WIDTH, WINDOW
from colbuild.arch.table import FULL, SLIDING, Architecture, GraphFacts, Role, Rotary, Scalar
from colbuild.arch.value_kinds import ANYTHING, FLAG, SHARE, choice, optional, several

_HEAD_WIDTH: Final = 256
_EVERY: Final = 6
"""Every so many layers one attends to all positions."""

_LAYERS_OF_27B: Final = 62


def _from_gguf(facts: Facts, config: Mapping[str, Any]) -> Mapping[str, Any]:
    layers, heads = config["num_hidden_layers"], config["num_attention_heads"]
    pattern = facts.given("attention.sliding_window_pattern")
    if isinstance(pattern, tuple) and len(pattern) == layers:
        slides = [bool(one) for one in pattern]
    else:
        every = pattern if isinstance(pattern, int) and pattern > 0 else _EVERY
        slides = [(layer + 1) % every != 0 for layer in range(layers)]
    # No file says by what queries are scaled; llama.cpp goes by the number of layers too.
    scalar = config["hidden_size"] // heads if layers == _LAYERS_OF_27B else config["head_dim"]
    return {
        "hidden_activation": "gelu_pytorch_tanh",
        "attention_bias": False,
        "sliding_window": facts.whole("attention.sliding_window"),
        "layer_types": [SLIDING if one else FULL for one in slides],
        "query_pre_attn_scalar": scalar,
        "rope_local_base_freq": facts.real("rope.freq_base_swa", 10000.0),
        "final_logit_softcapping": facts.given("final_logit_softcapping"),
        "attn_logit_softcapping": facts.given("attn_logit_softcapping"),
    }


TABLE: Final = Architecture(
    name="gemma3_text",
    model_class="Gemma3ForCausalLM",
    config_keys=usual.KEYS,
    flags={"tie_word_embeddings": True, "attention_bias": False},
    settings={
        **{key: kind for key, kind in usual.SETTINGS.items() if key != "hidden_act"},
        "num_key_value_heads": HEADS,
        "head_dim": WIDTH,
        "hidden_activation": ACTIVATION,
        "attention_bias": FLAG,
        "attention_dropout": optional(SHARE),
        "query_pre_attn_scalar": WIDTH,
        "sliding_window": WINDOW,
        "sliding_window_pattern": LAYERS,
        "layer_types": optional(several(choice(FULL, SLIDING))),
        "rope_local_base_freq": THETA,
        "final_logit_softcapping": ANYTHING,
        "attn_logit_softcapping": ANYTHING,
        "use_bidirectional_attention": optional(FLAG),
    },
    defaults={"kv_heads": 4, "head_dim": _HEAD_WIDTH},
    divides_hidden=True,
    layer_kinds=(FULL, SLIDING),
    norm_offset=1.0,
    scales_embedding=True,
    floating_norms=True,
    scalars={"attention_width": Scalar("query_pre_attn_scalar", _HEAD_WIDTH)},
    # The tables of a graph hold no other scaling for two kinds of layers.
    rotary=Rotary(("default", "linear", "yarn"), by_kind=True),
    accepts={"final_logit_softcapping": None, "attn_logit_softcapping": None, "use_bidirectional_attention": False},
    activation="hidden_activation",
    block={
        **usual.PARTS,
        **usual.INSIDE,
        "attention_norm": "input_layernorm",
        "attention_end": "post_attention_layernorm",
        "ffn_norm": "pre_feedforward_layernorm",
        "ffn_end": "post_feedforward_layernorm",
    },
    graph=GraphFacts(genai="gemma3_text", scales_queries=True),
    gguf=GGUFForm("gemma3", _from_gguf),
    prefix=usual.PREFIX,
    buffers=usual.BUFFERS,
    tensors=usual.table(
        usual.norm("input_layernorm"),
        *usual.ATTENTION,
        *usual.attention_biases(),
        *usual.head_norms(),
        usual.norm("post_attention_layernorm", Role.BRANCH_NORM),
        usual.norm("pre_feedforward_layernorm"),
        *usual.MLP,
        usual.norm("post_feedforward_layernorm", Role.BRANCH_NORM),
    ),
)
