"""Aligning: a checkpoint's own function in the coordinates of another model, so that the two can be mixed.

A public model's channels, heads and layers are in an order of their own, and its residual stream in a basis of its own. Each is
matched to the predecessor's by what they do on the same text: layers by what their blocks add, residual channels by what they
hold, heads and FFN channels by what they write. Re-basin methods match weights in this way (Git Re-Basin, arXiv 2209.04836).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from transformers import PreTrainedModel

from colbuild.arch import Role, Structure, norm_sites, tensors
from colbuild.arch.solve import contains
from colbuild.errors import BuildError
from colbuild.weights.activations import Activations, collect, output_projections
from colbuild.weights.checkpoint import Checkpoint, Lineage
from colbuild.weights.interpolate import check_kind
from colbuild.weights.matching import assign, match_channels, match_heads, match_layers
from colbuild.weights.rotate import check_turnable, turn, writes_of
from colbuild.weights.select import select
from colbuild.weights.subset import at_layer

Alignment = Literal["none", "permute", "procrustes"]


def check_alignable(candidate: Structure, predecessor: Structure, how: Alignment) -> None:
    """Raises BuildError, with what can be done, for models that cannot be aligned."""
    check_kind(predecessor, candidate)
    if not contains(predecessor.shape, candidate.shape):
        raise BuildError(
            f"the checkpoint's shape is not inside its teacher's: {candidate.shape} and {predecessor.shape}",
            hint="an anchor is smaller than its teacher along every axis, with as many heads for each kv head",
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
        The same function, with the places of its layers in the AnsNet. Its residual energies are for the caller to measure.

    Raises:
        BuildError: The two cannot be aligned, or what one of them computes is no number.
    """
    check_alignable(candidate.structure, predecessor.structure, how)
    ours = collect(candidate_model, candidate.structure, windows)
    theirs = collect(predecessor_model, predecessor.structure, windows)
    for found, whose in ((ours, "the checkpoint"), (theirs, "its teacher")):
        if not all(added.isfinite().all() for added in found.added):
            raise BuildError(f"what {whose} computes is no number (NaN or infinite): its weights are damaged")
    places = match_layers(ours.added, theirs.added)
    weights = {name: tensor.double() for name, tensor in candidate.tensors.items()}
    if how != "none":
        pairs = _Pairs(candidate.structure, predecessor, ours, theirs, places)
        weights = _inner(_residual(weights, pairs, how), pairs)
    ordered = predecessor.ordered
    lineage = Lineage(
        layers=tuple(ordered.layers[place] for place in places),
        ranking=ordered.ranking,
        residual=torch.ones(len(norm_sites(candidate.structure)), candidate.structure.shape.hidden),
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


def _residual(weights: Mapping[str, torch.Tensor], pairs: _Pairs, how: Alignment) -> dict[str, torch.Tensor]:
    """The same function with the residual stream in the predecessor's coordinates, its first ones if it is narrower."""
    hidden, structure = pairs.structure.shape.hidden, pairs.structure
    norms = {
        tensor.name: pairs.counterpart(tensor.name, tensor.layer)
        for tensor in tensors(structure)
        if tensor.role is Role.NORM
    }
    shared = torch.zeros(hidden, hidden, dtype=torch.float64)
    for ours, theirs in norms.items():
        own = _each_of_one_size(pairs.ours.read[ours])
        other = _each_of_one_size(pairs.theirs.read[theirs])[:, :hidden]
        if how == "permute":
            own, other = (each / each.norm(dim=0).clamp_min(1e-30) for each in (own, other))
        shared += (own.T @ other).double()
    if how == "permute":
        selection = {"hidden": assign(shared)}
        return {
            tensor.name: select(weights[tensor.name], tensor.axes, selection, structure.lengths)
            for tensor in tensors(structure)
        }
    left, _, right = torch.linalg.svd(shared)
    gains = {ours: pairs.predecessor.tensors[theirs][:hidden].double() for ours, theirs in norms.items()}
    return turn(weights, structure, left @ right, gains)


def _each_of_one_size(stream: torch.Tensor) -> torch.Tensor:
    """Every token with a root mean square of 1: a few tokens are a thousand times larger than all others."""
    return stream / stream.square().mean(dim=1, keepdim=True).sqrt().clamp_min(1e-30)


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
            found = orders[tensor.layer or 0]
            if role is Role.FFN_OUT:
                found["ffn"] = match_channels(*matched)
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
