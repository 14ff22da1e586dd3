"""Aligns a checkpoint to the coordinates of another model, so that the two can be mixed.

A public model's channels, heads and layers are in an order of their own, and its residual stream in a basis of its own. Each is
matched to the predecessor's by what they do on the same text: layers by what their blocks add, residual channels by what they
hold, heads and FFN channels by what they write. Re-basin methods match weights in this way (Git Re-Basin, arXiv 2209.04836).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

import torch
from torch import nn
from transformers import PreTrainedModel

from colbuild.arch import Role, Structure, Tensor, axis_factors, norm_sites, stream_readers, tensors, wide_norms
from colbuild.arch.solving import contains
from colbuild.errors import BuildError
from colbuild.weights.align.matching import assign, channels_alike, layers_alike, match_heads, match_layers
from colbuild.weights.files.checkpoint import Checkpoint, Lineage
from colbuild.weights.mixing.blend import prefix_of
from colbuild.weights.mixing.interpolation import check_kind
from colbuild.weights.prefix.captured import Activations, collect, output_projections
from colbuild.weights.prefix.rotation import check_turnable, folded, turn, writes_of
from colbuild.weights.prefix.selection import select
from colbuild.weights.prefix.subset import at_layer

_ROUNDS: Final = 2

Alignment = Literal["none", "permute", "procrustes"]


def check_alignable(candidate: Structure, predecessor: Structure, how: Alignment) -> None:
    """Raises BuildError, with what can be done, for models that cannot be aligned."""
    check_kind(predecessor, candidate)
    if not contains(predecessor.shape, candidate.shape):
        raise BuildError(
            f"the checkpoint's shape is not inside its teacher's: {candidate.shape} and {predecessor.shape}",
            hint="make the anchor smaller than its teacher along every axis, with as many heads for each kv head",
        )
    if how == "procrustes":
        check_turnable(candidate)


def align(
    candidate: Checkpoint,
    candidate_model: PreTrainedModel,
    predecessor: Checkpoint,
    predecessor_model: PreTrainedModel,
    windows: torch.Tensor,
    how: Alignment,
) -> Checkpoint:
    """Brings a checkpoint into the coordinates of an ordered model.

    Args:
        candidate: The checkpoint; inside the predecessor's shape.
        candidate_model: It as a model.
        predecessor: The model whose coordinates are taken; ordered.
        predecessor_model: It as a model.
        windows: Calibration tokens [windows, length].
        how: `permute` reorders residual channels, `procrustes` turns the residual stream by the orthogonal matrix that brings
            it nearest (Schönemann 1966); `none` leaves all as it is. Layers are matched always, since mixing needs to know
            which are which.

    Returns:
        The same function, with the places of its layers in the AnsNet. Its energies are for the caller to measure.

    Raises:
        BuildError: The two cannot be aligned, or what one of them computes is no number.
    """
    check_alignable(candidate.structure, predecessor.structure, how)
    ours = collect(candidate_model, candidate.structure, windows)
    theirs = collect(predecessor_model, predecessor.structure, windows)
    for found, whose in ((ours, "the checkpoint"), (theirs, "its teacher")):
        if not all(added.isfinite().all() for added in found.added):
            raise BuildError(f"{whose} computes NaN or infinity: its weights are damaged")
    alike = layers_alike(ours.added, theirs.added)
    pairs = _Pairs(candidate.structure, predecessor, ours, theirs, match_layers(alike))
    weights = {name: tensor.double() for name, tensor in candidate.tensors.items()}
    if how != "none":
        # Once the streams are alike, layers are known better by their weights; then what lies in them; then the streams again
        # by all weights, which are what is mixed; and that once more, for the few parts that were taken for others.
        near = _residual(weights, _streams_alike(pairs, how), pairs, how)
        pairs = replace(pairs, places=match_layers(alike + _layers_alike(near, pairs)))
        near = _residual(weights, _streams_alike(pairs, how), pairs, how)
        for _ in range(_ROUNDS):
            near = _residual(near, _weights_alike(_inner(near, pairs), pairs), pairs, how)
        weights = _inner(near, pairs)
    ordered, shape = predecessor.ordered, candidate.structure.shape
    wide = len(wide_norms(candidate.structure))
    lineage = Lineage(
        layers=tuple(ordered.layers[place] for place in pairs.places),
        ranking=ordered.ranking,
        residual=torch.ones(len(norm_sites(candidate.structure)), shape.hidden),
        heads=torch.ones(wide, shape.kv_heads) if wide else None,
    )
    stored = {name: weights[name].to(tensor.dtype).contiguous() for name, tensor in candidate.tensors.items()}
    return replace(candidate, tensors=stored, lineage=lineage)


@dataclass(frozen=True)
class _Pairs:
    """Two models, what passed through them, and which layers correspond."""

    structure: Structure
    predecessor: Checkpoint
    ours: Activations
    theirs: Activations
    places: tuple[int, ...]

    def counterpart(self, name: str, layer: int | None) -> str:
        """The predecessor's tensor that plays the same part."""
        return name if layer is None else at_layer(name, layer, self.places[layer])


def _layers_alike(weights: Mapping[str, torch.Tensor], pairs: _Pairs) -> torch.Tensor:
    """How alike our layers are to theirs by what they read of the stream [ours, theirs], however their insides are ordered."""
    ours = _reading(weights, pairs.structure, pairs.structure.shape.hidden)
    theirs = _reading(pairs.predecessor.tensors, pairs.predecessor.structure, pairs.structure.shape.hidden)
    return ours @ theirs.T


def _reading(weights: Mapping[str, torch.Tensor], structure: Structure, hidden: int) -> torch.Tensor:
    """Each layer's inner products between residual channels, over all rows that read them [layers, hidden^2], of length 1."""
    found = torch.zeros(structure.shape.layers, hidden, hidden, dtype=torch.float64)
    axes = {tensor.name: tensor for tensor in tensors(structure) if tensor.role in (Role.ATTENTION_IN, Role.FFN_IN)}
    for layer in range(structure.shape.layers):
        for name, weight in folded(weights, structure, layer).items():
            if name in axes:
                rows = weight.movedim(axes[name].axes.index("hidden"), 1)[:, :hidden].float()
                found[layer] += (rows.T @ rows).double()
    return nn.functional.normalize(found.flatten(1), dim=1)


def _streams_alike(pairs: _Pairs, how: Alignment) -> torch.Tensor:
    """How alike each of our residual channels is to each of theirs, by what they hold [hidden, hidden].

    Summed over the inputs of all that reads the stream.
    """
    hidden, shared = pairs.structure.shape.hidden, 0.0
    readers = set(stream_readers(pairs.structure))
    for tensor in tensors(pairs.structure):
        if tensor.name in readers:
            theirs = pairs.theirs.read[pairs.counterpart(tensor.name, tensor.layer)]
            own, other = (_each_of_one_size(stream) for stream in (pairs.ours.read[tensor.name], theirs))
            other = other[:, :hidden]
            if how == "permute":
                own, other = (each / each.norm(dim=0).clamp_min(1e-30) for each in (own, other))
            shared = shared + (own.T @ other).double() / (own.norm() * other.norm()).clamp_min(1e-30)
    return torch.as_tensor(shared)


def _weights_alike(weights: Mapping[str, torch.Tensor], pairs: _Pairs) -> torch.Tensor:
    """The same by the weights that read and write them, those of parts that are in the same place already."""
    structure, above = pairs.structure, pairs.predecessor
    shared = torch.zeros(structure.shape.hidden, structure.shape.hidden, dtype=torch.float64)
    for layer in (None, *range(structure.shape.layers)):
        place = None if layer is None else pairs.places[layer]
        ours, theirs = folded(weights, structure, layer), folded(above.tensors, above.structure, place)
        for tensor in (one for one in tensors(structure) if one.name in ours):
            along = tensor.axes.index("hidden")
            own = ours[tensor.name].movedim(along, 1)
            other = theirs[pairs.counterpart(tensor.name, layer)].movedim(along, 1)
            other = other[_first(tensor, 1 - along, pairs), : own.shape[1]]
            shared += (own.T @ other) / (own.norm() * other.norm()).clamp_min(1e-30)
    return shared


def _first(tensor: Tensor, dimension: int, pairs: _Pairs) -> torch.Tensor:
    """Which entries of the predecessor's tensor the candidate has too, along a dimension."""
    axis = tensor.axes[dimension]
    whole, part = (axis_factors(axis, one.lengths) for one in (pairs.predecessor.structure, pairs.structure))
    return torch.from_numpy(prefix_of(whole, part))


def _residual(
    weights: Mapping[str, torch.Tensor], shared: torch.Tensor, pairs: _Pairs, how: Alignment
) -> dict[str, torch.Tensor]:
    """The same function with the residual stream in the predecessor's coordinates, its first ones if it is narrower."""
    structure = pairs.structure
    if how == "permute":
        selection = {"hidden": assign(shared)}
        return {
            tensor.name: select(weights[tensor.name], tensor.axes, selection, structure.lengths)
            for tensor in tensors(structure)
        }
    left, _, right = torch.linalg.svd(shared)
    gains = {
        tensor.name: pairs.predecessor.tensors[pairs.counterpart(tensor.name, tensor.layer)][: shared.shape[0]].double()
        for tensor in tensors(structure)
        if tensor.role is Role.NORM
    }
    return turn(weights, structure, left @ right, gains)


def _each_of_one_size(stream: torch.Tensor) -> torch.Tensor:
    """Every token with a root mean square of 1: a few tokens are a thousand times larger than all others."""
    return stream / stream.square().mean(dim=1, keepdim=True).sqrt().clamp_min(1e-30)


def _channels_weights_alike(weights: Mapping[str, torch.Tensor], pairs: _Pairs, layer: int) -> torch.Tensor:
    """How alike the weights of our FFN channels in a layer are to those of theirs, the mean over its matrices [ffn, ffn]."""
    shape, above = pairs.structure.shape, pairs.predecessor
    ours = folded(weights, pairs.structure, layer)
    theirs = folded(above.tensors, above.structure, pairs.places[layer])
    alike = torch.zeros(shape.ffn, shape.ffn, dtype=torch.float64)
    matrices = [one for one in tensors(pairs.structure) if one.name in ours and "ffn" in one.axes]
    for tensor in matrices:
        own, other = (
            nn.functional.normalize(
                each.movedim(tensor.axes.index("ffn"), 0)[: shape.ffn, : shape.hidden].float(), dim=1
            )
            for each in (ours[tensor.name], theirs[pairs.counterpart(tensor.name, layer)])
        )
        alike += (own @ other.T).double() / len(matrices)
    return alike


def _inner(weights: Mapping[str, torch.Tensor], pairs: _Pairs) -> dict[str, torch.Tensor]:
    """The same function with the heads and FFN channels of each layer in the predecessor's order."""
    structure, shape = pairs.structure, pairs.structure.shape
    orders: dict[int, dict[str, torch.Tensor]] = {layer: {} for layer in range(shape.layers)}
    for role in (Role.ATTENTION_OUT, Role.FFN_OUT):
        for tensor in output_projections(structure, role):
            theirs = pairs.counterpart(tensor.name, tensor.layer)
            matched = (
                pairs.ours.read[tensor.name],
                writes_of(tensor, weights[tensor.name]).float(),
                pairs.theirs.read[theirs],
                writes_of(tensor, pairs.predecessor.tensors[theirs]).float()[: shape.hidden],
            )
            layer = tensor.layer or 0
            found = orders[layer]
            if role is Role.FFN_OUT:
                found["ffn"] = assign(
                    channels_alike(*matched).double() + _channels_weights_alike(weights, pairs, layer)
                )
            else:
                ours, our_writes, other, their_writes = (
                    each.reshape(each.shape[0], -1, shape.head_dim) for each in matched
                )
                group = shape.heads // shape.kv_heads
                found["heads"], found["kv_heads"] = match_heads(ours, our_writes, other, their_writes, group)
    return {
        tensor.name: weights[tensor.name]
        if tensor.layer is None
        else select(weights[tensor.name], tensor.axes, orders[tensor.layer], structure.lengths)
        for tensor in tensors(structure)
    }
