"""Interpolation: a DesNet of a size between two nested anchors, without training.

What both anchors have is mixed, (1 - alpha) larger + alpha smaller, with an alpha of its own for each group of tensors. What
only the larger one has (more FFN channels, heads, layers) is taken from it, and what these parts write into the residual
stream is scaled by 1 - fill: fill 0 keeps them (donor), fill 1 silences them (the zero expansion of Chain-of-Learngene,
arXiv 2605.07783, section 3.3). `subset` and `expand` are the two corners of this space.

Where the smaller anchor was cut from a nested student that reaches up to the larger one, that student has a prefix of the
DesNet's very shape, trained with it: it can be mixed with the larger anchor's subset too, whole tensors with whole tensors.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from colbuild.arch import Architecture, Role, Shape, Structure, Tensor, axis_factors, tensors
from colbuild.arch.solve import contains
from colbuild.errors import BuildError
from colbuild.weights.blend import Blend, as_index, prefix_of, rest_of
from colbuild.weights.checkpoint import Checkpoint
from colbuild.weights.subset import at_layer, subset


@dataclass(frozen=True)
class Mix:
    """How much of the smaller anchor goes into each group; 0 is all larger, 1 is all smaller.

    Attributes:
        embedding: Embedding, head and norms.
        attention: Attention projections.
        mlp: Feed-forward projections.
        fill: Output of FFN channels and heads that only the larger anchor has: scaled by 1 - fill.
        depth: Output of layers that only the larger anchor has: scaled by 1 - depth.
        nested: The nested student's prefix takes the smaller anchor's place; it lacks nothing, so `fill` and `depth` do
            nothing.
    """

    embedding: float
    attention: float
    mlp: float
    fill: float
    depth: float
    nested: bool = False


SUBSET = Mix(0.0, 0.0, 0.0, 0.0, 0.0)
"""The larger anchor's subset: nothing of the smaller one."""

EXPAND = Mix(1.0, 1.0, 1.0, 1.0, 1.0)
"""The smaller anchor, expanded by silent parts: its own function, unless hidden widths differ.

Residual channels that only the larger anchor has are always its own."""

_GROUP = {
    Role.EMBEDDING: "embedding",
    Role.HEAD: "embedding",
    Role.POSITION: "embedding",
    Role.NORM: "embedding",
    Role.NORM_BIAS: "embedding",
    Role.BRANCH_NORM: "embedding",
    Role.HEAD_NORM: "attention",
    Role.ATTENTION_IN: "attention",
    Role.ATTENTION_OUT: "attention",
    Role.FFN_IN: "mlp",
    Role.FFN_OUT: "mlp",
}


@dataclass(frozen=True)
class Neighbours:
    """Two nested models brought to a DesNet's coordinates.

    Attributes:
        base: The larger anchor's subset in the DesNet's shape: where every mixture starts.
        smaller: The smaller anchor.
        partner: For each layer of the DesNet, its position in the smaller anchor; None where only the larger has it.
        nested: The nested student's prefix in the DesNet's shape, if there is one.
    """

    base: Checkpoint
    smaller: Checkpoint
    partner: tuple[int | None, ...]
    nested: Checkpoint | None = None

    @property
    def has_fill(self) -> bool:
        """Whether the DesNet has channels or heads that the smaller anchor lacks."""
        ours, theirs = self.base.structure.shape, self.smaller.structure.shape
        return (ours.ffn, ours.heads) != (theirs.ffn, theirs.heads)

    @property
    def has_depth(self) -> bool:
        """Whether the DesNet has layers that the smaller anchor lacks."""
        return None in self.partner


def neighbours(larger: Checkpoint, smaller: Checkpoint, shape: Shape, nested: Checkpoint | None = None) -> Neighbours:
    """Prepares two anchors for mixing at a shape between them.

    Args:
        larger: The larger anchor.
        smaller: The smaller one.
        shape: The DesNet's.
        nested: The student that the smaller one was cut from. One that does not reach up to the shape, or that ranks layers
            in another order, is left out.

    Raises:
        BuildError: The shape is not between the anchors, or these were not ordered as one.
    """
    base = subset(larger, shape)
    partner = partners(base, smaller)
    return Neighbours(base, smaller, partner, None if nested is None else _prefix(nested, base))


def partners(base: Checkpoint, smaller: Checkpoint) -> tuple[int | None, ...]:
    """For each layer of a larger anchor's subset, its position in a smaller anchor; None where that one lacks it.

    Raises:
        BuildError: The smaller anchor does not lie inside the subset, or was not ordered with the larger one.
    """
    ours, theirs = base.structure, smaller.structure
    if ours.architecture != theirs.architecture or ours.flags != theirs.flags:
        raise BuildError(
            f"the anchors are of different architectures: {_kind(ours)} and {_kind(theirs)}",
            hint="only a bridge leads from one architecture to another",
        )
    if ours.shape.vocab != theirs.shape.vocab:
        raise BuildError(
            f"the anchors have vocabularies of {ours.shape.vocab:,} and {theirs.shape.vocab:,} tokens",
            hint="only a bridge leads from one vocabulary to another",
        )
    if not contains(ours.shape, theirs.shape):
        raise BuildError(f"{theirs.shape} is not inside {ours.shape}")
    if base.ordered.ranking != smaller.ordered.ranking:
        raise BuildError("the two anchors rank layers in another order: they do not come from one ordered AnsNet")
    position = {layer: index for index, layer in enumerate(smaller.ordered.layers)}
    return tuple(position.get(layer) for layer in base.ordered.layers)


def _kind(structure: Structure) -> str:
    settings = ", ".join(f"{flag} {value}".lower() for flag, value in sorted(structure.flags))
    return f"{structure.architecture.name} ({settings})"


def _prefix(nested: Checkpoint, base: Checkpoint) -> Checkpoint | None:
    """A nested student's prefix in the coordinates of a DesNet's base; None if it has none in these."""
    shape = base.structure.shape
    if not contains(nested.structure.shape, shape) or nested.ordered.ranking != base.ordered.ranking:
        return None
    prefix = subset(nested, shape)
    return prefix if prefix.ordered.layers == base.ordered.layers else None


def mix(pair: Neighbours, how: Mix) -> dict[str, torch.Tensor]:
    """The DesNet's weights for one mixture; inputs are left as they are.

    Raises:
        BuildError: The mixture is with a nested student, and there is none.
    """
    if how.nested:
        if pair.nested is None:
            raise BuildError("there is no nested student to mix with")
        pair = Neighbours(pair.base, pair.nested, tuple(range(len(pair.partner))))
    return {tensor.name: _mix_tensor(pair, tensor, how) for tensor in tensors(pair.base.structure)}


def _mix_tensor(pair: Neighbours, tensor: Tensor, how: Mix) -> torch.Tensor:
    base = pair.base.tensors[tensor.name]
    name, mixing = blend(pair.base.structure, pair.smaller.structure, pair.partner, tensor, how)
    if not mixing.changes:
        return base
    mixed = base.clone()
    small = pair.smaller.tensors[name] if mixing.needs_partner else None
    mixing.apply(as_matrix(mixed), None if small is None else as_matrix(small))
    return mixed


def as_matrix(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor as [rows, columns]; one dimension alone is rows."""
    return tensor.view(tensor.shape[0], -1)


def blend(
    structure: Structure, smaller: Structure, partners: tuple[int | None, ...], tensor: Tensor, how: Mix
) -> tuple[str, Blend]:
    """How one tensor of a DesNet is made.

    Args:
        structure: The DesNet.
        smaller: The smaller anchor.
        partners: For each layer of the DesNet, its position in the smaller anchor; None where only the larger has it.
        tensor: One of the DesNet's.
        how: The mixture.

    Returns:
        (the smaller anchor's tensor that it is mixed with, how).
    """
    partner = None if tensor.layer is None else partners[tensor.layer]
    if tensor.layer is not None and partner is None:
        silenced = how.depth and tensor.role in _last_of_branch(structure.architecture)
        offset = structure.architecture.norm_offset if tensor.role is Role.BRANCH_NORM else 0.0
        return tensor.name, Blend(_NOTHING, slice(0, 0), scale=1.0 - how.depth if silenced else 1.0, offset=offset)
    name = tensor.name if tensor.layer is None or partner is None else at_layer(tensor.name, tensor.layer, partner)
    shared = [
        prefix_of(axis_factors(axis, structure.lengths), axis_factors(axis, smaller.lengths)) for axis in tensor.axes
    ]
    rows, columns = shared[0], as_index(shared[1]) if len(shared) == 2 else slice(0, 1)
    alpha = getattr(how, _GROUP[tensor.role])
    if tensor.role not in _OUTPUTS or len(tensor.axes) == 1 or how.fill == 0.0:
        return name, Blend(rows, columns, alpha)
    # What an output projection reads past the smaller anchor's channels or heads is the donor's.
    read = 1 - tensor.axes.index("hidden")
    beyond = rest_of(tensor.lengths[read], shared[read])
    if not len(beyond):
        return name, Blend(rows, columns, alpha)
    if read == 0:
        return name, Blend(rows, columns, alpha, beyond_rows=beyond, keep=1.0 - how.fill)
    return name, Blend(rows, columns, alpha, beyond_columns=as_index(beyond), keep=1.0 - how.fill)


_NOTHING = torch.arange(0)
_OUTPUTS = (Role.FFN_OUT, Role.ATTENTION_OUT)


def _last_of_branch(architecture: Architecture) -> tuple[Role, ...]:
    """What scales everything that a branch writes: its output projection, or a norm after that."""
    normed = any(pattern.role is Role.BRANCH_NORM for pattern in architecture.tensors)
    return (Role.BRANCH_NORM,) if normed else _OUTPUTS
