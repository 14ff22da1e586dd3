"""An architecture as data: every tensor's name with the named axes it is made of.

Counting, solving shapes, subsetting, ordering and interpolating are written once over these tables and know no
architecture. Adding one means adding a table (see `colbuild/arch/llama.py`) and its tests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from math import prod
from typing import Any

from colbuild.arch.shape import Shape


class Role(Enum):
    """What a tensor does in a block: enough for operators to treat it without knowing its name."""

    EMBEDDING = "embedding"
    HEAD = "head"
    NORM = "norm"
    ATTENTION_IN = "attention_in"
    ATTENTION_OUT = "attention_out"
    FFN_IN = "ffn_in"
    FFN_OUT = "ffn_out"


@dataclass(frozen=True)
class TensorPattern:
    """One line of an architecture's table.

    Attributes:
        name: The tensor's name; `{layer}` stands for the block's index.
        axes: One axis per dimension, slowest first. An axis is a field of `Shape` or a product such as "heads*head_dim".
        role: What the tensor does.
        when: (config flag, value) for a tensor that exists only then; None when it always does.
    """

    name: str
    axes: tuple[str, ...]
    role: Role
    when: tuple[str, bool] | None = None


Term = tuple[int, tuple[str, ...]]
"""How many tensors of a kind there are, and the fields of `Shape` whose product is the size of one in all layers."""


@dataclass(frozen=True)
class Architecture:
    """A family of configurations that one table describes.

    Attributes:
        name: `model_type` in config.json.
        model_class: The class transformers loads it with (`architectures` in config.json).
        tensors: The table.
        config_keys: Field of `Shape` -> key in config.json.
        flags: Config key -> value when config.json does not give it; the only settings the table depends on.
    """

    name: str
    model_class: str
    tensors: tuple[TensorPattern, ...]
    config_keys: Mapping[str, str]
    flags: Mapping[str, bool]
    _terms: dict[frozenset[tuple[str, bool]], tuple[Term, ...]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def terms(self, flags: frozenset[tuple[str, bool]]) -> tuple[Term, ...]:
        """The parameter count as a sum of products, worked out once: solving shapes counts hundreds of times for each."""
        if flags not in self._terms:
            products = Counter(
                (*(("layers",) if "{layer}" in pattern.name else ()), *"*".join(pattern.axes).split("*"))
                for pattern in self.tensors
                if pattern.when is None or pattern.when in flags
            )
            self._terms[flags] = tuple((times, factors) for factors, times in products.items())
        return self._terms[flags]


@dataclass(frozen=True)
class Tensor:
    """One tensor of one model: its full name, axes, lengths, role and block (None outside the blocks)."""

    name: str
    axes: tuple[str, ...]
    lengths: tuple[int, ...]
    role: Role
    layer: int | None


@dataclass(frozen=True)
class Structure:
    """A model without its weights: architecture, shape and the flags its tensors depend on."""

    architecture: Architecture
    shape: Shape
    flags: frozenset[tuple[str, bool]]

    def at(self, shape: Shape) -> Structure:
        """The same architecture in another shape."""
        return replace(self, shape=shape)


def axis_length(axis: str, shape: Shape) -> int:
    """The length of a named axis, products included ("heads*head_dim")."""
    return prod(getattr(shape, factor) for factor in axis.split("*"))


def patterns(structure: Structure) -> Iterator[TensorPattern]:
    """The lines of the table that hold for this structure."""
    for pattern in structure.architecture.tensors:
        if pattern.when is None or pattern.when in structure.flags:
            yield pattern


def tensors(structure: Structure) -> Iterator[Tensor]:
    """Every stored tensor of a model in the order of computation; a tied head is not stored and not listed."""
    table = list(patterns(structure))
    in_blocks = [pattern for pattern in table if "{layer}" in pattern.name]
    first = table.index(in_blocks[0])
    for pattern in table[:first]:
        yield _tensor(pattern, structure.shape, None)
    for layer in range(structure.shape.layers):
        for pattern in in_blocks:
            yield _tensor(pattern, structure.shape, layer)
    for pattern in table[first + len(in_blocks) :]:
        yield _tensor(pattern, structure.shape, None)


def _tensor(pattern: TensorPattern, shape: Shape, layer: int | None) -> Tensor:
    lengths = tuple(axis_length(axis, shape) for axis in pattern.axes)
    return Tensor(pattern.name.format(layer=layer), pattern.axes, lengths, pattern.role, layer)


def norm_sites(structure: Structure) -> list[str]:
    """Names of the norms that read the residual stream, in the order of computation."""
    return [tensor.name for tensor in tensors(structure) if tensor.role is Role.NORM and tensor.axes == ("hidden",)]


def parameters(structure: Structure) -> int:
    """The number of stored parameters; tied embeddings count once."""
    lengths = vars(structure.shape)
    terms = structure.architecture.terms(structure.flags)
    return sum(times * prod([lengths[axis] for axis in factors]) for times, factors in terms)


def forward_flops(structure: Structure, context: int) -> int:
    """Floating point operations to process one token, averaged over a causal sequence of `context` tokens.

    Two for each weight of a matrix product (the head counts, tied or not; looking up an embedding is free), and four
    per head dimension for each of the on average (context + 1) / 2 positions attended to. Norms, activations and rotary
    embeddings are left out, as is usual.
    """
    shape = structure.shape
    products = shape.vocab * shape.hidden
    for pattern in patterns(structure):
        if len(pattern.axes) == 2 and pattern.role not in (Role.EMBEDDING, Role.HEAD):
            products += prod(axis_length(axis, shape) for axis in pattern.axes) * shape.layers
    attention = 4 * shape.layers * shape.heads * shape.head_dim * (context + 1) // 2
    return 2 * products + attention


def structure_of(config: Mapping[str, Any], architecture: Architecture) -> Structure:
    """Reads a model's structure from its config.json.

    Raises:
        KeyError: The configuration lacks a key that the architecture needs.
    """
    keys = architecture.config_keys
    lengths = {axis: config[keys[axis]] for axis in ("layers", "hidden", "ffn", "heads", "vocab")}
    kv_heads = config.get(keys["kv_heads"]) or lengths["heads"]
    head_dim = config.get(keys["head_dim"]) or lengths["hidden"] // lengths["heads"]
    flags = frozenset((flag, bool(config.get(flag, default))) for flag, default in architecture.flags.items())
    return Structure(architecture, Shape(kv_heads=kv_heads, head_dim=head_dim, **lengths), flags)


def config_for(config: Mapping[str, Any], structure: Structure) -> dict[str, Any]:
    """A copy of config.json with another shape written into it."""
    written = {key: getattr(structure.shape, axis) for axis, key in structure.architecture.config_keys.items()}
    return {**config, **written}
