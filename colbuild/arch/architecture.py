"""An architecture as data: every tensor's name with the named axes it is made of.

Counting, solving shapes, subsetting, ordering and interpolating are written once over these tables and know no
architecture. Adding one means adding a table (see docs/architectures.md) and its tests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from math import prod
from typing import Any, Final

from colbuild.arch.shape import Shape
from colbuild.errors import BuildError


class Role(Enum):
    """What a tensor does in a block: enough for operators to treat it without knowing its name.

    `NORM` reads the residual stream, `BRANCH_NORM` what a branch is about to write into it, `HEAD_NORM` each head's queries
    or keys. A bias has the role of the weight it goes with, but for a norm's, which is `NORM_BIAS`.
    """

    EMBEDDING = "embedding"
    POSITION = "position"
    HEAD = "head"
    NORM = "norm"
    NORM_BIAS = "norm_bias"
    BRANCH_NORM = "branch_norm"
    HEAD_NORM = "head_norm"
    ATTENTION_IN = "attention_in"
    ATTENTION_OUT = "attention_out"
    FFN_IN = "ffn_in"
    FFN_OUT = "ffn_out"


_POSITIONS: Final = ("max_position_embeddings", "n_positions")

_STORED: Final = {"float32": 4, "float64": 8}
"""What config.json may call the type of its weights -> bytes of each; all others are of 16 bits."""

NORMS: Final = (Role.NORM, Role.BRANCH_NORM)
"""What normalises over the hidden width."""


@dataclass(frozen=True)
class TensorPattern:
    """One line of an architecture's table.

    Attributes:
        name: The tensor's name; `{layer}` stands for the block's index.
        axes: One axis per dimension, slowest first. An axis is a field of `Shape`, a key of `Architecture.fixed`, or a product
            of these and of plain numbers, slowest first: "heads*head_dim", "3*heads*head_dim" for queries, keys and values one
            after the other, "heads*3*head_dim" for the three of each head together.
        role: What the tensor does.
        when: (config flag, value) for a tensor that exists only then; None when it always does.
    """

    name: str
    axes: tuple[str, ...]
    role: Role
    when: tuple[str, bool] | None = None


Term = tuple[int, tuple[str, ...]]
"""How many tensors of a kind there are, and the lengths whose product is the size of one in all layers."""


@dataclass(frozen=True)
class Architecture:
    """A family of configurations that one table describes.

    Attributes:
        name: `model_type` in config.json.
        model_class: The class transformers loads it with (`architectures` in config.json).
        tensors: The table.
        config_keys: Field of `Shape` -> key in config.json. Without "kv_heads" every head has keys and values of its own;
            without "head_dim" a head is always hidden / heads wide, so that both shrink together.
        flags: Config key -> value when config.json does not give it; the only settings the table depends on.
        fixed: Axis -> config key of a length that is the same in every member of a family.
        defaults: Field of `Shape` -> length when config.json gives none; the usual ones need not be named.
        ffn_times: The FFN's width in hidden widths when config.json gives none.
        per_layer: Config keys that hold a list with one entry for each layer.
        norm_offset: What a norm adds to its weight before it multiplies.
        scales_embedding: Whether token embeddings are multiplied by the root of the hidden width.
        accepts: Config key -> the only value that the table and the operators over it are right for.
        prefix: What files may leave out at the start of every name but the head's.
        stored_as: Tensor -> its name in files, where that is not its name in the model.
        buffers: Ends of names that old files hold and that are no weights.
    """

    name: str
    model_class: str
    tensors: tuple[TensorPattern, ...]
    config_keys: Mapping[str, str]
    flags: Mapping[str, bool]
    fixed: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, int] = field(default_factory=dict)
    ffn_times: int | None = None
    per_layer: tuple[str, ...] = ()
    norm_offset: float = 0.0
    scales_embedding: bool = False
    accepts: Mapping[str, Any] = field(default_factory=dict)
    prefix: str = ""
    stored_as: Mapping[str, str] = field(default_factory=dict)
    buffers: tuple[str, ...] = ()
    _terms: dict[frozenset[tuple[str, bool]], tuple[Term, ...]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def stored_name(self, name: str) -> str:
        """What a tensor is called in a file."""
        return self.stored_as.get(name, name)

    def model_name(self, stored: str) -> str:
        """What a tensor of a file is called in the model."""
        return next((name for name, other in self.stored_as.items() if other == stored), stored)

    @property
    def ties_widths(self) -> bool:
        """Whether the hidden width is always heads * head_dim."""
        return "head_dim" not in self.config_keys

    def terms(self, flags: frozenset[tuple[str, bool]]) -> tuple[Term, ...]:
        """The parameter count as a sum of products, worked out once: solving shapes counts hundreds of times for each."""
        if flags not in self._terms:
            products: Counter[tuple[str, ...]] = Counter()
            for pattern in self.tensors:
                if pattern.when is None or pattern.when in flags:
                    factors = [*(("layers",) if "{layer}" in pattern.name else ()), *"*".join(pattern.axes).split("*")]
                    times = prod(int(factor) for factor in factors if factor.isdigit())
                    products[tuple(factor for factor in factors if not factor.isdigit())] += times
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
    """Where a config.json says how many positions the model has, or would."""
    return next((key for key in _POSITIONS if key in config), _POSITIONS[0])


def rotary_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a config.json says of rotary positions, under its newer or its older name; `rope_type` is always among it."""
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
