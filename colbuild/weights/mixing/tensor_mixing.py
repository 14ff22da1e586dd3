"""Mixes one tensor of a DesNet from its neighbours', for every mixture and architecture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from colbuild.arch import NORMS, Architecture, Role, Structure, Tensor, axis_factors, axis_length
from colbuild.weights.mixing.blend import Blend, Copied, as_index, places_of, prefix_of, rest_of
from colbuild.weights.mixing.mixture import Mix
from colbuild.weights.prefix.subset import at_layer

_OUTPUTS = (Role.FFN_OUT, Role.ATTENTION_OUT)
_NOTHING = np.arange(0)


def blend(
    structure: Structure, smaller: Structure, partners: Sequence[int | None], tensor: Tensor, how: Mix
) -> tuple[str, Blend]:
    """Returns the blend of one tensor of a DesNet.

    Args:
        structure: The DesNet.
        smaller: The smaller anchor.
        partners: For each layer of the DesNet, its position in the smaller anchor; None where only the larger has it.
        tensor: One of the DesNet's.
        how: The mixture.

    Returns:
        (the smaller anchor's tensor that it is mixed with, how).
    """
    if tensor.layer is None:
        return tensor.name, _shared(structure, smaller, tensor, how)
    partner = partners[tensor.layer]
    if partner is not None:
        return at_layer(tensor.name, tensor.layer, partner), _shared(structure, smaller, tensor, how)
    if how.expansion == "copy" and tensor.role not in _last_of_branch(structure.architecture):
        name = at_layer(tensor.name, tensor.layer, _nearest(partners, tensor.layer))
        return name, _shared(structure, smaller, tensor, how)
    return tensor.name, _alone(structure.architecture, tensor, how)


def _alone(architecture: Architecture, tensor: Tensor, how: Mix) -> Blend:
    """A tensor in a layer that only the larger anchor has."""
    keep = 1.0 - how.silence(tensor, "depth")
    if how.expansion == "zero":
        return Blend(_NOTHING, slice(0, 0), scale=keep)
    if keep == 1.0 or tensor.role not in _last_of_branch(architecture):
        return Blend(_NOTHING, slice(0, 0))
    offset = architecture.norm_offset if tensor.role is Role.BRANCH_NORM else 0.0
    return Blend(_NOTHING, slice(0, 0), scale=keep, offset=offset)


def _shared(structure: Structure, smaller: Structure, tensor: Tensor, how: Mix) -> Blend:
    """A tensor that both have, if not all of it."""
    factors = [tuple(axis_factors(axis, one.lengths) for one in (structure, smaller)) for axis in tensor.axes]
    shared = [prefix_of(ours, theirs) for ours, theirs in factors]
    rows, columns = shared[0], as_index(shared[1]) if len(shared) == 2 else slice(0, 1)
    alpha = how.alpha(tensor)
    if how.expansion == "zero":
        return _zero_filled(structure, smaller, tensor, Blend(rows, columns, alpha, rest=1.0 - alpha))
    if how.expansion == "copy":
        return _copied(structure, smaller, tensor, alpha)
    fill = how.silence(tensor, "fill")
    if tensor.role not in _OUTPUTS or len(tensor.axes) == 1 or fill == 0.0:
        return Blend(rows, columns, alpha)
    # What an output projection reads past the smaller anchor's channels or heads is the donor's.
    read = 1 - tensor.axes.index("hidden")
    beyond = rest_of(tensor.lengths[read], shared[read])
    if not len(beyond):
        return Blend(rows, columns, alpha)
    if read == 0:
        return Blend(rows, columns, alpha, beyond_rows=beyond, keep=1.0 - fill)
    return Blend(rows, columns, alpha, beyond_columns=as_index(beyond), keep=1.0 - fill)


def _zero_filled(structure: Structure, smaller: Structure, tensor: Tensor, mixed: Blend) -> Blend:
    """Channels, or heads, of 0 make a root mean square over all of them smaller: an RMS norm is rescaled by as much."""
    if tensor.role not in (*NORMS, Role.HEAD_NORM) or _centres(structure.architecture):
        return mixed
    ours, theirs = (axis_length(tensor.axes[0], one.lengths) for one in (structure, smaller))
    if ours == theirs:
        return mixed
    scale, offset = (theirs / ours) ** 0.5, structure.architecture.norm_offset
    return Blend(mixed.rows, mixed.columns, mixed.alpha, rest=mixed.rest, partner_scale=scale, offset=offset)


def _copied(structure: Structure, smaller: Structure, tensor: Tensor, alpha: float) -> Blend:
    """A tensor whose channels and heads beyond the smaller anchor's are copies of that one's first ones.

    An output projection's copies are divided by how many of them read the same, so that together they write what one did.
    """
    mixed, read, shares = [], [], []
    for axis in tensor.axes:
        names = axis.split("*")
        ours, theirs = (axis_factors(axis, one.lengths) for one in (structure, smaller))
        # Residual channels are never copied: they are the larger anchor's own.
        most = tuple(
            small if name == "hidden" else large for name, large, small in zip(names, ours, theirs, strict=True)
        )
        from_place, copies = places_of(most, theirs)
        mixed.append(prefix_of(ours, most))
        read.append(from_place)
        shares.append((1.0 / copies).astype(np.float32) if tensor.role in _OUTPUTS and "hidden" not in names else None)
    if len(tensor.axes) == 1:
        return Blend(mixed[0], slice(0, 1), alpha, copied=Copied(read[0], _FIRST))
    copied = Copied(read[0], read[1], shares[0], shares[1])
    return Blend(mixed[0], as_index(mixed[1]), alpha, copied=copied)


_FIRST = np.arange(1)


def _nearest(partners: Sequence[int | None], layer: int) -> int:
    """The smaller anchor's layer that comes before a layer that it lacks; its first one where none does."""
    before = [partner for partner in partners[:layer] if partner is not None]
    return before[-1] if before else 0


def _last_of_branch(architecture: Architecture) -> tuple[Role, ...]:
    """What scales everything that a branch writes: its output projection, or a norm after that."""
    normed = any(pattern.role is Role.BRANCH_NORM for pattern in architecture.tensors)
    return (Role.BRANCH_NORM,) if normed else _OUTPUTS


def _centres(architecture: Architecture) -> bool:
    """Returns whether norms take the mean off first (LayerNorm): then channels of 0 change more than a scale."""
    return any(pattern.role is Role.NORM_BIAS for pattern in architecture.tensors)
