"""GPT-2: LayerNorm, learned positions, queries, keys and values in one projection, a plain feed-forward part."""

from __future__ import annotations

from typing import Final

from colbuild.arch.setting_kinds import ACTIVATION, EPSILON, EVERY, HEADS, LAYERS, POSITIONS, WIDTH
from colbuild.arch.table import Architecture, GraphFacts, Role, TensorPattern, layer_norm
from colbuild.arch.value_kinds import FLAG, SHARE, optional

_BLOCK: Final = "transformer.h.{layer}"

TABLE: Final = Architecture(
    name="gpt2",
    model_class="GPT2LMHeadModel",
    config_keys={"layers": "n_layer", "hidden": "n_embd", "ffn": "n_inner", "heads": "n_head", "vocab": "vocab_size"},
    flags={"tie_word_embeddings": True},
    settings={
        **EVERY,
        "n_layer": LAYERS,
        "n_embd": WIDTH,
        "n_inner": optional(WIDTH),
        "n_head": HEADS,
        "n_positions": POSITIONS,
        "activation_function": ACTIVATION,
        "resid_pdrop": SHARE,
        "embd_pdrop": SHARE,
        "attn_pdrop": SHARE,
        "layer_norm_epsilon": EPSILON,
        "scale_attn_weights": FLAG,
        "scale_attn_by_inverse_layer_idx": FLAG,
        "reorder_and_upcast_attn": FLAG,
        "add_cross_attention": FLAG,
    },
    fixed={"positions": "n_positions"},
    ffn_times=4,
    divides_hidden=True,
    rotary=None,
    accepts={"add_cross_attention": False, "scale_attn_by_inverse_layer_idx": False, "scale_attn_weights": True},
    epsilon="layer_norm_epsilon",
    activation="activation_function",
    block={
        "attention_norm": "ln_1",
        "stacked": "attn.c_attn",
        "output": "attn.c_proj",
        "ffn_norm": "ln_2",
        "up": "mlp.c_fc",
        "down": "mlp.c_proj",
    },
    # Its activation is computed in parts.
    kept_ffn=5,
    graph=GraphFacts(renamed={"mlp.c_fc": "mlp.up_proj", "mlp.c_proj": "mlp.down_proj"}),
    prefix="transformer.",
    buffers=(".attn.bias", ".attn.masked_bias"),
    # Its projections are stored [in, out], the other way round than everyone else's.
    tensors=(
        TensorPattern("transformer.wte.weight", ("vocab", "hidden"), Role.EMBEDDING),
        TensorPattern("transformer.wpe.weight", ("positions", "hidden"), Role.POSITION),
        *layer_norm(f"{_BLOCK}.ln_1"),
        TensorPattern(f"{_BLOCK}.attn.c_attn.weight", ("hidden", "3*heads*head_dim"), Role.ATTENTION_IN),
        TensorPattern(f"{_BLOCK}.attn.c_attn.bias", ("3*heads*head_dim",), Role.ATTENTION_IN),
        TensorPattern(f"{_BLOCK}.attn.c_proj.weight", ("heads*head_dim", "hidden"), Role.ATTENTION_OUT),
        TensorPattern(f"{_BLOCK}.attn.c_proj.bias", ("hidden",), Role.ATTENTION_OUT),
        *layer_norm(f"{_BLOCK}.ln_2"),
        TensorPattern(f"{_BLOCK}.mlp.c_fc.weight", ("hidden", "ffn"), Role.FFN_IN),
        TensorPattern(f"{_BLOCK}.mlp.c_fc.bias", ("ffn",), Role.FFN_IN),
        TensorPattern(f"{_BLOCK}.mlp.c_proj.weight", ("ffn", "hidden"), Role.FFN_OUT),
        TensorPattern(f"{_BLOCK}.mlp.c_proj.bias", ("hidden",), Role.FFN_OUT),
        *layer_norm("transformer.ln_f"),
        TensorPattern("lm_head.weight", ("vocab", "hidden"), Role.HEAD, ("tie_word_embeddings", False)),
    ),
)
