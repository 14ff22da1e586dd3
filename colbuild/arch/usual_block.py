"""Shared parts of architectures with the usual block: RMSNorm, rotary positions, grouped queries, a gated FFN."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from colbuild.arch.rotary import ROTARY_KEYS
from colbuild.arch.setting_kinds import ACTIVATION, EPSILON, EVERY, HEADS, LAYERS, POSITIONS, WIDTH
from colbuild.arch.table import Role, TensorPattern
from colbuild.arch.value_kinds import SHARE, Kind, optional

_BLOCK: Final = "model.layers.{layer}"
KEYS: Final[Mapping[str, str]] = {
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "ffn": "intermediate_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "vocab": "vocab_size",
}
PREFIX: Final = "model."
BUFFERS: Final = (".rotary_emb.inv_freq",)
BIASED: Final = ("attention_bias", True)
"""The flag of biases in attention."""

SETTINGS: Final[Mapping[str, Kind]] = {
    **EVERY,
    **ROTARY_KEYS,
    "num_hidden_layers": LAYERS,
    "hidden_size": WIDTH,
    "intermediate_size": WIDTH,
    "num_attention_heads": HEADS,
    "num_key_value_heads": optional(HEADS),
    "head_dim": optional(WIDTH),
    "hidden_act": ACTIVATION,
    "max_position_embeddings": POSITIONS,
    "rms_norm_eps": EPSILON,
    "attention_dropout": SHARE,
}
PARTS: Final[Mapping[str, str]] = {
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "output": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
BEFORE: Final[Mapping[str, str]] = {"attention_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
"""The norms before attention and FFN."""

INSIDE: Final[Mapping[str, str]] = {"query_norm": "self_attn.q_norm", "key_norm": "self_attn.k_norm"}
"""The norms over queries and keys."""

ATTENTION: Final = (
    TensorPattern(f"{_BLOCK}.self_attn.q_proj.weight", ("heads*head_dim", "hidden"), Role.ATTENTION_IN),
    TensorPattern(f"{_BLOCK}.self_attn.k_proj.weight", ("kv_heads*head_dim", "hidden"), Role.ATTENTION_IN),
    TensorPattern(f"{_BLOCK}.self_attn.v_proj.weight", ("kv_heads*head_dim", "hidden"), Role.ATTENTION_IN),
    TensorPattern(f"{_BLOCK}.self_attn.o_proj.weight", ("hidden", "heads*head_dim"), Role.ATTENTION_OUT),
)
MLP: Final = (
    TensorPattern(f"{_BLOCK}.mlp.gate_proj.weight", ("ffn", "hidden"), Role.FFN_IN),
    TensorPattern(f"{_BLOCK}.mlp.up_proj.weight", ("ffn", "hidden"), Role.FFN_IN),
    TensorPattern(f"{_BLOCK}.mlp.down_proj.weight", ("hidden", "ffn"), Role.FFN_OUT),
)
MLP_BIASES: Final = (
    TensorPattern(f"{_BLOCK}.mlp.gate_proj.bias", ("ffn",), Role.FFN_IN, ("mlp_bias", True)),
    TensorPattern(f"{_BLOCK}.mlp.up_proj.bias", ("ffn",), Role.FFN_IN, ("mlp_bias", True)),
    TensorPattern(f"{_BLOCK}.mlp.down_proj.bias", ("hidden",), Role.FFN_OUT, ("mlp_bias", True)),
)


def norm(name: str, role: Role = Role.NORM) -> TensorPattern:
    """A norm over the hidden width."""
    return TensorPattern(f"{_BLOCK}.{name}.weight", ("hidden",), role)


def head_norms(query: str = "head_dim", key: str = "head_dim") -> tuple[TensorPattern, TensorPattern]:
    """The norms over queries and keys, each over an axis: "head_dim" for each head by itself."""
    return (
        TensorPattern(f"{_BLOCK}.self_attn.q_norm.weight", (query,), Role.HEAD_NORM),
        TensorPattern(f"{_BLOCK}.self_attn.k_norm.weight", (key,), Role.HEAD_NORM),
    )


def attention_biases(when: tuple[str, bool] | None = BIASED, *, output: bool = True) -> tuple[TensorPattern, ...]:
    """Biases of queries, keys, values and, with `output`, of the output projection; always there when `when` is None."""
    biases = tuple(
        TensorPattern(f"{_BLOCK}.self_attn.{name}_proj.bias", (f"{heads}*head_dim",), Role.ATTENTION_IN, when)
        for name, heads in (("q", "heads"), ("k", "kv_heads"), ("v", "kv_heads"))
    )
    last = TensorPattern(f"{_BLOCK}.self_attn.o_proj.bias", ("hidden",), Role.ATTENTION_OUT, when)
    return (*biases, *((last,) if output else ()))


def table(*block: TensorPattern) -> tuple[TensorPattern, ...]:
    """The whole table of an architecture with such blocks."""
    return (
        TensorPattern("model.embed_tokens.weight", ("vocab", "hidden"), Role.EMBEDDING),
        *block,
        TensorPattern("model.norm.weight", ("hidden",), Role.NORM),
        TensorPattern("lm_head.weight", ("vocab", "hidden"), Role.HEAD, ("tie_word_embeddings", False)),
    )
