"""GPT-NeoX: LayerNorm, queries, keys and values of each head together, attention and FFN side by side."""

from __future__ import annotations

from typing import Final

from colbuild.arch.gguf_form import GGUFForm
from colbuild.arch.rotary import ROTARY_KEYS
from colbuild.arch.setting_kinds import ACTIVATION, EPSILON, EVERY, HEADS, LAYERS, POSITIONS, THETA, WIDTH
from colbuild.arch.table import Architecture, Role, Rotary, TensorPattern, layer_norm
from colbuild.arch.value_kinds import FLAG, SHARE

_BLOCK: Final = "gpt_neox.layers.{layer}"
_BIASED: Final = ("attention_bias", True)

TABLE: Final = Architecture(
    name="gpt_neox",
    model_class="GPTNeoXForCausalLM",
    config_keys={
        "layers": "num_hidden_layers",
        "hidden": "hidden_size",
        "ffn": "intermediate_size",
        "heads": "num_attention_heads",
        "vocab": "vocab_size",
    },
    flags={"tie_word_embeddings": False, "attention_bias": True},
    settings={
        **EVERY,
        **{key: kind for key, kind in ROTARY_KEYS.items() if key in ("rope_scaling", "rope_parameters")},
        "rotary_emb_base": THETA,
        "rotary_pct": SHARE,
        "num_hidden_layers": LAYERS,
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH,
        "num_attention_heads": HEADS,
        "hidden_act": ACTIVATION,
        "attention_dropout": SHARE,
        "hidden_dropout": SHARE,
        "max_position_embeddings": POSITIONS,
        "layer_norm_eps": EPSILON,
        "use_parallel_residual": FLAG,
        "attention_bias": FLAG,
    },
    divides_hidden=True,
    side_by_side="use_parallel_residual",
    rotary=Rotary(share=0.25),
    epsilon="layer_norm_eps",
    block={
        "attention_norm": "input_layernorm",
        "stacked": "attention.query_key_value",
        "output": "attention.dense",
        "ffn_norm": "post_attention_layernorm",
        "up": "mlp.dense_h_to_4h",
        "down": "mlp.dense_4h_to_h",
    },
    bridge={"use_parallel_residual": False},
    kept_ffn=2,
    gguf=GGUFForm("gptneox", None),
    prefix="gpt_neox.",
    stored_as={"lm_head.weight": "embed_out.weight"},
    buffers=(".attention.bias", ".attention.masked_bias", ".attention.rotary_emb.inv_freq"),
    tensors=(
        TensorPattern("gpt_neox.embed_in.weight", ("vocab", "hidden"), Role.EMBEDDING),
        *layer_norm(f"{_BLOCK}.input_layernorm"),
        *layer_norm(f"{_BLOCK}.post_attention_layernorm"),
        TensorPattern(f"{_BLOCK}.attention.query_key_value.weight", ("heads*3*head_dim", "hidden"), Role.ATTENTION_IN),
        TensorPattern(f"{_BLOCK}.attention.query_key_value.bias", ("heads*3*head_dim",), Role.ATTENTION_IN, _BIASED),
        TensorPattern(f"{_BLOCK}.attention.dense.weight", ("hidden", "heads*head_dim"), Role.ATTENTION_OUT),
        TensorPattern(f"{_BLOCK}.attention.dense.bias", ("hidden",), Role.ATTENTION_OUT, _BIASED),
        TensorPattern(f"{_BLOCK}.mlp.dense_h_to_4h.weight", ("ffn", "hidden"), Role.FFN_IN),
        TensorPattern(f"{_BLOCK}.mlp.dense_h_to_4h.bias", ("ffn",), Role.FFN_IN),
        TensorPattern(f"{_BLOCK}.mlp.dense_4h_to_h.weight", ("hidden", "ffn"), Role.FFN_OUT),
        TensorPattern(f"{_BLOCK}.mlp.dense_4h_to_h.bias", ("hidden",), Role.FFN_OUT),
        *layer_norm("gpt_neox.final_layer_norm"),
        TensorPattern("lm_head.weight", ("vocab", "hidden"), Role.HEAD, ("tie_word_embeddings", False)),
    ),
)
