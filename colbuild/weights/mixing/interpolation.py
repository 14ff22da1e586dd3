"""Interpolates a DesNet of a size between two nested anchors, without training.

What both anchors have is mixed, (1 - alpha) larger + alpha smaller, with an alpha of its own for each group of tensors, or for
each layer. What only the larger one has (more FFN channels, heads, layers) is taken from it, and what these parts write into
the residual stream is scaled by 1 - fill: fill 0 keeps them as they are, fill 1 silences them. `subset` and `expand` are the
two corners of this space. The smaller anchor can be expanded by zeros instead, which is the zero fill of Chain-of-Learngene
(arXiv 2605.07783, section 3.3), or by copies of its own parts.

Where the smaller anchor was cut from a nested student that reaches up to the larger one, that student has a prefix of the
DesNet's very shape, trained with it: it can be mixed with the larger anchor's subset too, whole tensors with whole tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from colbuild.arch import Shape, Structure, Tensor, tensors
from colbuild.arch.solving import contains
from colbuild.errors import BuildError
from colbuild.weights.files.arrays import Array, as_array, type_of
from colbuild.weights.files.checkpoint import Checkpoint
from colbuild.weights.mixing.mixture import Mix, even
from colbuild.weights.mixing.tensor_mixing import blend
from colbuild.weights.prefix.subset import subset

if TYPE_CHECKING:
    import numpy as np
    import torch


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
        BuildError: The shape is not between the anchors, these were not ordered as one, or are of different number types.
    """
    base = ranked_as(subset(towards(larger, smaller), shape), larger)
    partner = partners(base, smaller)
    types = ({name: type_of(tensor) for name, tensor in one.tensors.items()} for one in (base, smaller))
    check_types(base.structure, smaller.structure, partner, even(0.5), *types)
    return Neighbours(base, smaller, partner, None if nested is None else _prefix(nested, base))


def towards(larger: Checkpoint, smaller: Checkpoint) -> Checkpoint:
    """The larger anchor, ranked so that every subset of it as deep as the smaller one has all of that one's layers.

    They are the highest ranked ones already, unless the smaller anchor started from a checkpoint of its own.
    """
    ranking = larger.ordered.ranking
    shared = [layer for layer in ranking if layer in smaller.ordered.layers]
    others = [layer for layer in ranking if layer not in smaller.ordered.layers]
    return replace(larger, lineage=replace(larger.ordered, ranking=(*shared, *others)))


def ranked_as(base: Checkpoint, larger: Checkpoint) -> Checkpoint:
    """A subset, with the ranking that its family has."""
    return replace(base, lineage=replace(base.ordered, ranking=larger.ordered.ranking))


def partners(base: Checkpoint, smaller: Checkpoint) -> tuple[int | None, ...]:
    """For each layer of a larger anchor's subset, its position in a smaller anchor; None where that one lacks it.

    Raises:
        BuildError: The smaller anchor does not lie inside the subset, or was not ordered with the larger one.
    """
    ours, theirs = base.structure, smaller.structure
    check_kind(ours, theirs)
    if not contains(ours.shape, theirs.shape):
        raise BuildError(f"{theirs.shape} is not inside {ours.shape}")
    if base.ordered.ranking != smaller.ordered.ranking:
        raise BuildError("the two anchors rank layers in different orders: they do not come from one ordered AnsNet")
    position = {layer: index for index, layer in enumerate(smaller.ordered.layers)}
    return tuple(position.get(layer) for layer in base.ordered.layers)


def check_kind(ours: Structure, theirs: Structure) -> None:
    """Raises BuildError for models that no mixture and no anchor can be made of together."""
    if ours.architecture != theirs.architecture or ours.flags != theirs.flags:
        raise BuildError(
            f"the two models are of different architectures: {_kind(ours)} and {_kind(theirs)}",
            hint="use a bridge to go from one architecture to another",
        )
    if ours.shape.vocab != theirs.shape.vocab:
        raise BuildError(
            f"the two models have vocabularies of {ours.shape.vocab:,} and {theirs.shape.vocab:,} tokens",
            hint="use a bridge to go from one vocabulary to another",
        )


def check_types(
    structure: Structure,
    smaller: Structure,
    partners: Sequence[int | None],
    how: Mix,
    ours: Mapping[str, np.dtype[Any]],
    theirs: Mapping[str, np.dtype[Any]],
) -> None:
    """Compares the number types of what a mixture brings together.

    Args:
        structure: The DesNet.
        smaller: The smaller anchor.
        partners: For each layer of the DesNet, its position in the smaller anchor; None where only the larger has it.
        how: The mixture.
        ours: The type of each of the DesNet's tensors in the larger anchor.
        theirs: The type of each of the smaller anchor's.

    Raises:
        BuildError: A tensor is of one type here and of another there.
    """
    for tensor in tensors(structure):
        partner, mixed = blend(structure, smaller, partners, tensor, how)
        if mixed.needs_partner and ours[tensor.name] != theirs[partner]:
            raise BuildError(
                f"{tensor.name} is {ours[tensor.name]} in the larger anchor and {theirs[partner]} in the smaller one",
                hint="save one of them with the other's type, or build both from one AnsNet",
            )


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
    pair = mixing(pair, how)
    return {tensor.name: mix_tensor(pair, tensor, how) for tensor in tensors(pair.base.structure)}


def mixing(pair: Neighbours, how: Mix) -> Neighbours:
    """The two models that a mixture is of: the nested student's prefix may take the smaller anchor's place.

    Raises:
        BuildError: It is to, and there is none.
    """
    if not how.nested:
        return pair
    if pair.nested is None:
        raise BuildError("there is no nested student for a mixture")
    return Neighbours(pair.base, pair.nested, tuple(range(len(pair.partner))))


def mix_tensor(pair: Neighbours, tensor: Tensor, how: Mix) -> torch.Tensor:
    """One of the DesNet's tensors; the larger anchor's own where the mixture changes nothing."""
    base = pair.base.tensors[tensor.name]
    name, found = blend(pair.base.structure, pair.smaller.structure, pair.partner, tensor, how)
    if not found.changes:
        return base
    mixed = base.clone().contiguous()
    small = pair.smaller.tensors[name] if found.needs_partner else None
    found.apply(as_matrix(mixed), None if small is None else as_matrix(small))
    return mixed


def as_matrix(tensor: torch.Tensor) -> Array:
    """The memory of a tensor as [rows, columns]; one dimension alone is rows."""
    return as_array(tensor.contiguous()).reshape(tensor.shape[0], -1)
