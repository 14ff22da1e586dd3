"""A transformer block's parts by what they do, so that a block of one architecture can be written down in another's tensors.

Every architecture has queries, keys, values and an output, norms before attention and FFN, and an FFN of two or three
matrices; they differ in how these are named, stacked and turned, and in the norms that some have besides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import torch

from colbuild.arch import Structure

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True, eq=False)
class Linear:
    """A projection: weight [out, in] and bias [out]."""

    weight: torch.Tensor
    bias: torch.Tensor | None = None


@dataclass(frozen=True, eq=False)
class Block:
    """One block.

    Attributes:
        attention_norm: What it multiplies by before attention [hidden], and what is added to that.
        query: [heads * head_dim, hidden].
        key: [kv_heads * head_dim, hidden].
        value: As `key`.
        output: [hidden, heads * head_dim].
        ffn_norm: As `attention_norm`, before the FFN.
        gate: What decides which inner channels are open, through the activation; None for an FFN without.
        up: [ffn, hidden]; through the activation where there is no gate.
        down: [hidden, ffn].
        query_norm: What each head's queries are multiplied by behind a norm of their own [head_dim]; None without one.
        key_norm: The same for keys.
        attention_end: What the attention's output is multiplied by behind a norm of its own [hidden]; None without one.
        ffn_end: The same for the FFN's.
    """

    attention_norm: Linear
    query: Linear
    key: Linear
    value: Linear
    output: Linear
    ffn_norm: Linear
    gate: Linear | None
    up: Linear
    down: Linear
    query_norm: torch.Tensor | None = None
    key_norm: torch.Tensor | None = None
    attention_end: torch.Tensor | None = None
    ffn_end: torch.Tensor | None = None


GATED: Final = ("llama", "mistral", "qwen2", "qwen3", "gemma3_text")
"""Architectures whose FFN has a gate."""

STEMS: Final[Mapping[str, str]] = {
    **dict.fromkeys(GATED, "model.layers.{layer}"),
    "gpt2": "transformer.h.{layer}",
    "gpt_neox": "gpt_neox.layers.{layer}",
}
"""Where each architecture's blocks are."""

_INNER_NORMS: Final[Mapping[str, str]] = {"query_norm": "self_attn.q_norm", "key_norm": "self_attn.k_norm"}
_END_NORMS: Final[Mapping[str, str]] = {
    "attention_end": "post_attention_layernorm",
    "ffn_end": "post_feedforward_layernorm",
}
NORMS_INSIDE: Final[Mapping[str, Mapping[str, str]]] = {
    "qwen3": _INNER_NORMS,
    "gemma3_text": {**_INNER_NORMS, **_END_NORMS},
}
"""Architecture -> a block's norms beside those of the residual stream: field of `Block` -> name in the block."""


def inside_norms(structure: Structure, layer: int) -> dict[str, str]:
    """A block's norms beside those of the residual stream: field of `Block` -> name of the norm's weight."""
    name = structure.architecture.name
    stem = STEMS[name].format(layer=layer)
    return {part: f"{stem}.{place}.weight" for part, place in NORMS_INSIDE.get(name, {}).items()}


def read_block(structure: Structure, tensors: Tensors, layer: int) -> Block:
    """A block of a model."""
    name, offset = structure.architecture.name, structure.architecture.norm_offset
    stem = STEMS[name].format(layer=layer)

    def linear(part: str, turned: bool = False) -> Linear:
        weight = tensors[f"{stem}.{part}.weight"]
        return Linear(weight.T if turned else weight, tensors.get(f"{stem}.{part}.bias"))

    def norm(part: str) -> Linear:
        found = linear(part)
        return replace(found, weight=found.weight + offset) if offset else found

    if name in GATED:
        second = "pre_feedforward_layernorm" if name == "gemma3_text" else "post_attention_layernorm"
        query, key, value, output = (linear(f"self_attn.{part}_proj") for part in ("q", "k", "v", "o"))
        gate, up, down = (linear(f"mlp.{part}_proj") for part in ("gate", "up", "down"))
        found = Block(norm("input_layernorm"), query, key, value, output, norm(second), gate, up, down)
        inside = {part: norm(inner).weight for part, inner in NORMS_INSIDE.get(name, {}).items()}
        return replace(found, **inside)  # type: ignore[arg-type]  # its fields of that name are tensors
    if name == "gpt2":
        stacked = _unstacked(linear("attn.c_attn", True), structure, "3*heads")
        output, up, down = (linear(part, True) for part in ("attn.c_proj", "mlp.c_fc", "mlp.c_proj"))
        return Block(norm("ln_1"), *stacked, output, norm("ln_2"), None, up, down)
    stacked = _unstacked(linear("attention.query_key_value"), structure, "heads*3")
    output, up, down = (linear(part) for part in ("attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"))
    return Block(norm("input_layernorm"), *stacked, output, norm("post_attention_layernorm"), None, up, down)


def write_block(structure: Structure, block: Block, layer: int) -> dict[str, torch.Tensor]:
    """The tensors of a block in an architecture, those that it has; what a block lacks is left out."""
    name, offset = structure.architecture.name, structure.architecture.norm_offset
    stem = STEMS[name].format(layer=layer)
    found: dict[str, torch.Tensor] = {}

    def linear(part: str, value: Linear | None, turned: bool = False) -> None:
        if value is None:
            return
        found[f"{stem}.{part}.weight"] = value.weight.T if turned else value.weight
        if value.bias is not None:
            found[f"{stem}.{part}.bias"] = value.bias

    def norm(part: str, value: Linear) -> None:
        linear(part, replace(value, weight=value.weight - offset) if offset else value)

    if name in GATED:
        norm("input_layernorm", block.attention_norm)
        norm("pre_feedforward_layernorm" if name == "gemma3_text" else "post_attention_layernorm", block.ffn_norm)
        attention = {"q": block.query, "k": block.key, "v": block.value, "o": block.output}
        for part, value in attention.items():
            linear(f"self_attn.{part}_proj", value)
        for part, inner in {"gate": block.gate, "up": block.up, "down": block.down}.items():
            linear(f"mlp.{part}_proj", inner)
        for part, place in NORMS_INSIDE.get(name, {}).items():
            weight: torch.Tensor | None = getattr(block, part)
            if weight is not None:
                norm(place, Linear(weight))
        return found
    parts = (block.query, block.key, block.value)
    if name == "gpt2":
        norm("ln_1", block.attention_norm)
        norm("ln_2", block.ffn_norm)
        linear("attn.c_attn", _stacked(parts, structure, "3*heads"), True)
        for part, value in {"attn.c_proj": block.output, "mlp.c_fc": block.up, "mlp.c_proj": block.down}.items():
            linear(part, value, True)
        return found
    norm("input_layernorm", block.attention_norm)
    norm("post_attention_layernorm", block.ffn_norm)
    linear("attention.query_key_value", _stacked(parts, structure, "heads*3"))
    for part, value in {
        "attention.dense": block.output,
        "mlp.dense_h_to_4h": block.up,
        "mlp.dense_4h_to_h": block.down,
    }.items():
        linear(part, value)
    return found


def heads_repeated(part: Linear, head_dim: int, times: int) -> Linear:
    """Keys or values with each head there `times` times, as grouped queries use them."""

    def repeat(tensor: torch.Tensor) -> torch.Tensor:
        return _split(tensor, (-1, head_dim)).repeat_interleave(times, dim=0).flatten(0, 1)

    return Linear(repeat(part.weight), None if part.bias is None else repeat(part.bias))


def _split(tensor: torch.Tensor, sizes: tuple[int, ...]) -> torch.Tensor:
    """A tensor whose first axis is split into several."""
    return tensor.reshape(*sizes, *tensor.shape[1:])


def _unstacked(stacked: Linear, structure: Structure, order: str) -> tuple[Linear, Linear, Linear]:
    """Queries, keys and values out of one projection, in which they, or the heads, come first."""
    heads, width = structure.shape.heads, structure.shape.head_dim
    sizes, axis = ((3, heads, width), 0) if order == "3*heads" else ((heads, 3, width), 1)

    def split(tensor: torch.Tensor) -> list[torch.Tensor]:
        return [part.flatten(0, 1) for part in _split(tensor, sizes).unbind(axis)]

    biases = [None] * 3 if stacked.bias is None else split(stacked.bias)
    query, key, value = (Linear(*pair) for pair in zip(split(stacked.weight), biases, strict=True))
    return query, key, value


def _stacked(parts: tuple[Linear, Linear, Linear], structure: Structure, order: str) -> Linear:
    heads, width = structure.shape.heads, structure.shape.head_dim
    axis = 0 if order == "3*heads" else 1

    def join(tensors: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack([_split(tensor, (heads, width)) for tensor in tensors], axis).flatten(0, 2)

    weight = join([part.weight for part in parts])
    biases = [part.bias for part in parts if part.bias is not None]
    return Linear(weight, join(biases) if len(biases) == len(parts) else None)
