"""A model without its weights: its architecture's table at some lengths, and what follows from these.

Counting, solving shapes, subsetting, ordering and interpolating are written once over the tables (`colbuild.arch.table`) and
know no architecture.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, Final

from colbuild.arch.shape import Shape
from colbuild.arch.table import NORMS, Architecture, Role, TensorPattern
from colbuild.errors import BuildError

_POSITIONS: Final = ("max_position_embeddings", "n_positions")

_STORED: Final = {"float32": 4, "float64": 8}
"""What config.json may call the type of its weights -> bytes of each; all others are of 16 bits."""


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
    """A model without its weights: architecture, shape, the flags its tensors depend on, and the lengths that are fixed.

    `stored` is how many bytes a weight has in its file, which makes no other model of it.
    """

    architecture: Architecture
    shape: Shape
    flags: frozenset[tuple[str, bool]]
    fixed: frozenset[tuple[str, int]] = frozenset()
    stored: int = field(default=2, compare=False)

    def at(self, shape: Shape) -> Structure:
        """The same architecture in another shape."""
        return replace(self, shape=shape)

    @property
    def lengths(self) -> dict[str, int]:
        """Every simple axis with its length."""
        return {**vars(self.shape), **dict(self.fixed)}


def axis_factors(axis: str, lengths: Mapping[str, int]) -> tuple[int, ...]:
    """The lengths of an axis's factors, slowest first: (3, heads, head_dim) for "3*heads*head_dim"."""
    return tuple(int(factor) if factor.isdigit() else lengths[factor] for factor in axis.split("*"))


def axis_length(axis: str, lengths: Mapping[str, int]) -> int:
    """The length of a named axis, products included ("heads*head_dim")."""
    return prod(axis_factors(axis, lengths))


def patterns(structure: Structure) -> Iterator[TensorPattern]:
    """The lines of the table that hold for this structure."""
    for pattern in structure.architecture.tensors:
        if pattern.when is None or pattern.when in structure.flags:
            yield pattern


def tensors(structure: Structure) -> Iterator[Tensor]:
    """Every stored tensor of a model in the order of computation; a tied head is not stored and not listed."""
    table = list(patterns(structure))
    lengths = structure.lengths
    in_blocks = [pattern for pattern in table if "{layer}" in pattern.name]
    first = table.index(in_blocks[0])
    for pattern in table[:first]:
        yield _tensor(pattern, lengths, None)
    for layer in range(structure.shape.layers):
        for pattern in in_blocks:
            yield _tensor(pattern, lengths, layer)
    for pattern in table[first + len(in_blocks) :]:
        yield _tensor(pattern, lengths, None)


def _tensor(pattern: TensorPattern, lengths: Mapping[str, int], layer: int | None) -> Tensor:
    sizes = tuple(axis_length(axis, lengths) for axis in pattern.axes)
    return Tensor(pattern.name.format(layer=layer), pattern.axes, sizes, pattern.role, layer)


def norm_sites(structure: Structure) -> list[str]:
    """Names of the norms over the hidden width, in the order of computation: those of the residual stream and of branches."""
    return [tensor.name for tensor in tensors(structure) if tensor.role in NORMS]


def stream_readers(structure: Structure) -> list[str]:
    """Weights of what reads the residual stream, in the order of computation: two in each block, and the last norm.

    In a block they are norms, or the first projections of attention and FFN where no norms come before these.
    """
    architecture = structure.architecture
    parts = ("attention_norm", "ffn_norm")
    if not architecture.has_norms_before:
        parts = ("query", "gate" if architecture.is_gated else "up")
    blocks = [architecture.stem.format(layer=layer) for layer in range(structure.shape.layers)]
    last = [tensor.name for tensor in tensors(structure) if tensor.role is Role.NORM and tensor.layer is None]
    return [f"{block}.{architecture.block[part]}.weight" for block in blocks for part in parts] + last


def wide_norms(structure: Structure) -> list[str]:
    """Names of the norms over the queries, or the keys, of all heads together, in the order of computation."""
    return [
        tensor.name for tensor in tensors(structure) if tensor.role is Role.HEAD_NORM and tensor.axes != ("head_dim",)
    ]


def parameters(structure: Structure) -> int:
    """The number of stored parameters; tied embeddings count once."""
    lengths = structure.lengths
    terms = structure.architecture.terms(structure.flags)
    return sum(times * prod([lengths[axis] for axis in factors]) for times, factors in terms)


def forward_flops(structure: Structure, context: int) -> int:
    """Floating point operations to process one token, averaged over a causal sequence of `context` tokens.

    Two for each weight of a matrix product (the head counts, tied or not; looking up an embedding is free), and four
    per head dimension for each of the on average (context + 1) / 2 positions attended to. Norms, activations and rotary
    embeddings are left out, as is usual; so is what a sliding window saves where `context` is longer.
    """
    shape, lengths = structure.shape, structure.lengths
    products = shape.vocab * shape.hidden
    for pattern in patterns(structure):
        if len(pattern.axes) == 2 and pattern.role not in (Role.EMBEDDING, Role.POSITION, Role.HEAD):
            products += prod(axis_length(axis, lengths) for axis in pattern.axes) * shape.layers
    attention = 4 * shape.layers * shape.heads * shape.head_dim * (context + 1) // 2
    return 2 * products + attention


def structure_of(config: Mapping[str, Any], architecture: Architecture) -> Structure:
    """Reads a model's structure from its config.json.

    Raises:
        KeyError: The configuration lacks a key that the architecture needs.
        BuildError: It has a setting that the architecture's table does not describe.
    """
    for key, value in architecture.accepts.items():
        if config.get(key, value) not in (value, None):
            raise BuildError(
                f"{architecture.name} with {key}: {config[key]} is not supported; only {key}: {value} is",
                hint="choose another AnsNet",
            )
    keys, usual = architecture.config_keys, architecture.defaults
    lengths = {axis: int(config[keys[axis]]) for axis in ("layers", "hidden", "heads", "vocab")}
    hidden, heads = lengths["hidden"], lengths["heads"]
    if config.get(keys["ffn"]) is None and architecture.ffn_times is not None:
        lengths["ffn"] = architecture.ffn_times * hidden
    else:
        lengths["ffn"] = int(config[keys["ffn"]])
    for axis, derived in (("kv_heads", heads), ("head_dim", hidden // heads)):
        # A key without a value is not a missing one: transformers then derives the length, whatever the usual one is.
        given = keys.get(axis) in config
        lengths[axis] = (config[keys[axis]] or derived) if given else usual.get(axis, derived)
    flags = frozenset((flag, bool(config.get(flag, default))) for flag, default in architecture.flags.items())
    fixed = frozenset((axis, int(config[key])) for axis, key in architecture.fixed.items())
    named = str(config.get("dtype") or config.get("torch_dtype")).removeprefix("torch.")
    return Structure(architecture, Shape(**lengths), flags, fixed, _STORED.get(named, 2))


def positions_key(config: Mapping[str, Any]) -> str:
    """Returns the key of a config.json for the number of positions."""
    return next((key for key in _POSITIONS if key in config), _POSITIONS[0])


def rotary_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a config.json's settings of rotary positions, from the newer or the older key; always with `rope_type`."""
    found = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return {"rope_type": found.get("type", "default"), **found}


def config_for(config: Mapping[str, Any], structure: Structure, kept: Sequence[int] | None = None) -> dict[str, Any]:
    """A copy of config.json with another shape written into it.

    Args:
        config: The model's.
        structure: Its structure in the other shape.
        kept: Which of its layers are left; None: the first ones.
    """
    architecture = structure.architecture
    written = {key: getattr(structure.shape, axis) for axis, key in architecture.config_keys.items()}
    positions = range(structure.shape.layers) if kept is None else kept
    listed = {key: [config[key][layer] for layer in positions] for key in architecture.per_layer if config.get(key)}
    return {**config, **written, **listed}
