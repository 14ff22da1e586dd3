"""The parts of a transformer block by function, for conversion between architectures.

Every architecture has queries, keys, values and an output, norms before attention and FFN or after them, and an FFN of two or
three matrices; they differ in how these are named, stacked and turned (`Architecture.block` and the axes of its tensors), and
in the norms that some have besides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch

from colbuild.arch import Architecture, Structure

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
        query: [heads * head_dim, hidden].
        key: [kv_heads * head_dim, hidden].
        value: As `key`.
        output: [hidden, heads * head_dim].
        up: [ffn, hidden]; through the activation where there is no gate.
        down: [hidden, ffn].
        gate: What decides which inner channels are open, through the activation; None for an FFN without.
        attention_norm: What it multiplies by before attention [hidden], and what is added to that; None without such a norm.
        ffn_norm: As `attention_norm`, before the FFN.
        query_norm: What each head's queries are multiplied by behind a norm of their own [head_dim], or those of all heads
            behind one norm [heads * head_dim]; None without one.
        key_norm: The same for keys.
        attention_end: What the attention's output is multiplied by behind a norm of its own [hidden]; None without one.
        ffn_end: The same for the FFN's.
    """

    query: Linear
    key: Linear
    value: Linear
    output: Linear
    up: Linear
    down: Linear
    gate: Linear | None = None
    attention_norm: Linear | None = None
    ffn_norm: Linear | None = None
    query_norm: torch.Tensor | None = None
    key_norm: torch.Tensor | None = None
    attention_end: torch.Tensor | None = None
    ffn_end: torch.Tensor | None = None


_NORMS: Final = ("attention_norm", "ffn_norm", "query_norm", "key_norm", "attention_end", "ffn_end")
_INSIDE: Final = _NORMS[2:]
"""Norms beside those of the residual stream."""

_STACKED: Final = ("query", "key", "value")


def inside_norms(structure: Structure, layer: int) -> dict[str, str]:
    """A block's norms beside those of the residual stream: field of `Block` -> name of the norm's weight."""
    architecture = structure.architecture
    stem = architecture.stem.format(layer=layer)
    return {part: f"{stem}.{architecture.block[part]}.weight" for part in _INSIDE if part in architecture.block}


def read_block(structure: Structure, tensors: Tensors, layer: int) -> Block:
    """A block of a model."""
    architecture = structure.architecture
    stem, offset = architecture.stem.format(layer=layer), architecture.norm_offset
    found: dict[str, Linear] = {}
    for part, place in architecture.block.items():
        weight, bias = tensors[f"{stem}.{place}.weight"], tensors.get(f"{stem}.{place}.bias")
        if part in _NORMS:
            weight = weight + offset if offset else weight
        elif _lies_on_its_side(architecture, part):
            weight = weight.T
        found[part] = Linear(weight, bias)
    if "stacked" in found:
        found |= zip(_STACKED, _unstacked(found.pop("stacked"), structure), strict=True)
    inside = {part: found.pop(part).weight for part in _INSIDE if part in found}
    return Block(**found, **inside)  # type: ignore[arg-type]  # its other fields are tensors


def write_block(structure: Structure, block: Block, layer: int) -> dict[str, torch.Tensor]:
    """The tensors of a block in an architecture, those that it has; what a block lacks is left out."""
    architecture = structure.architecture
    stem, offset = architecture.stem.format(layer=layer), architecture.norm_offset
    found: dict[str, torch.Tensor] = {}
    for part, place in architecture.block.items():
        value: Linear | torch.Tensor | None = (
            _stacked((block.query, block.key, block.value), structure) if part == "stacked" else getattr(block, part)
        )
        if value is None:
            continue
        one = Linear(value) if isinstance(value, torch.Tensor) else value
        weight = one.weight
        if part in _NORMS:
            weight = weight - offset if offset else weight
        elif _lies_on_its_side(architecture, part):
            weight = weight.T
        found[f"{stem}.{place}.weight"] = weight
        if one.bias is not None:
            found[f"{stem}.{place}.bias"] = one.bias
    return found


def _lies_on_its_side(architecture: Architecture, part: str) -> bool:
    """Returns whether a projection is stored [in, out]."""
    writes = part in ("output", "down")
    return architecture.axes_of(part).index("hidden") == (1 if writes else 0)


def heads_repeated(part: Linear, head_dim: int, times: int) -> Linear:
    """Keys or values with each head there `times` times, as grouped queries use them."""

    def repeat(tensor: torch.Tensor) -> torch.Tensor:
        return _split(tensor, (-1, head_dim)).repeat_interleave(times, dim=0).flatten(0, 1)

    return Linear(repeat(part.weight), None if part.bias is None else repeat(part.bias))


def _split(tensor: torch.Tensor, sizes: tuple[int, ...]) -> torch.Tensor:
    """A tensor whose first axis is split into several."""
    return tensor.reshape(*sizes, *tensor.shape[1:])


def _stacking(structure: Structure) -> int:
    """Where queries, keys and values come among the factors of the rows that hold all three: 0, or 1 behind the heads."""
    [rows] = [axis for axis in structure.architecture.axes_of("stacked") if axis != "hidden"]
    return rows.split("*").index("3")


def _unstacked(stacked: Linear, structure: Structure) -> tuple[Linear, Linear, Linear]:
    """Queries, keys and values out of one projection, in which they, or the heads, come first."""
    heads, width, axis = structure.shape.heads, structure.shape.head_dim, _stacking(structure)
    sizes = (heads, 3, width) if axis else (3, heads, width)

    def split(tensor: torch.Tensor) -> list[torch.Tensor]:
        return [part.flatten(0, 1) for part in _split(tensor, sizes).unbind(axis)]

    biases = [None] * 3 if stacked.bias is None else split(stacked.bias)
    query, key, value = (Linear(*pair) for pair in zip(split(stacked.weight), biases, strict=True))
    return query, key, value


def _stacked(parts: tuple[Linear, Linear, Linear], structure: Structure) -> Linear:
    heads, width, axis = structure.shape.heads, structure.shape.head_dim, _stacking(structure)

    def join(tensors: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack([_split(tensor, (heads, width)) for tensor in tensors], axis).flatten(0, 2)

    weight = join([part.weight for part in parts])
    biases = [part.bias for part in parts if part.bias is not None]
    return Linear(weight, join(biases) if len(biases) == len(parts) else None)
