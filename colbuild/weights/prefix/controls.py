"""Baselines: subsets of a model chosen without measurements."""

from __future__ import annotations

from dataclasses import replace

import torch

from colbuild.arch import Shape
from colbuild.errors import BuildError
from colbuild.weights.files.checkpoint import Checkpoint
from colbuild.weights.prefix.importance import Importance
from colbuild.weights.prefix.ordering import order
from colbuild.weights.prefix.subset import subset


def random_subset(larger: Checkpoint, shape: Shape, seed: int) -> Checkpoint:
    """Channels, heads and layers drawn by lot, each axis for itself.

    Raises:
        BuildError: The shape does not lie inside the model's.
    """
    generator = torch.Generator().manual_seed(seed)

    ours = larger.structure.shape
    return _chosen(
        larger,
        shape,
        ffn=torch.rand(ours.layers, ours.ffn, generator=generator),
        kv_heads=torch.rand(ours.layers, ours.kv_heads, generator=generator),
        hidden=torch.rand(ours.hidden, generator=generator),
        layers=torch.rand(ours.layers, generator=generator),
    )


def uniform_subset(larger: Checkpoint, shape: Shape) -> Checkpoint:
    """Channels, heads and layers that are evenly spaced, the first and the last among them.

    Raises:
        BuildError: The shape does not lie inside the model's.
    """
    ours = larger.structure.shape
    return _chosen(
        larger,
        shape,
        ffn=_spaced(shape.ffn, ours.ffn).expand(ours.layers, -1),
        kv_heads=_spaced(shape.kv_heads, ours.kv_heads).expand(ours.layers, -1),
        hidden=_spaced(shape.hidden, ours.hidden),
        layers=_spaced(shape.layers, ours.layers),
    )


def _spaced(count: int, whole: int) -> torch.Tensor:
    """1 for evenly spaced places, 0 for the others."""
    if count > whole:
        raise BuildError(f"{count} of {whole} cannot be chosen")
    found = torch.zeros(whole)
    found[torch.linspace(0, whole - 1, count).round().long()] = 1.0
    return found


def _chosen(
    larger: Checkpoint,
    shape: Shape,
    *,
    ffn: torch.Tensor,
    kv_heads: torch.Tensor,
    hidden: torch.Tensor,
    layers: torch.Tensor,
) -> Checkpoint:
    """The subset of the highest scores, in the coordinates that the larger model's layers have in the AnsNet."""
    ours, lineage = larger.structure.shape, larger.ordered
    heads = kv_heads.repeat_interleave(ours.heads // ours.kv_heads, dim=1)
    made = subset(order(larger, Importance(ffn, heads, hidden, layers, lineage.residual)), shape)
    places = tuple(lineage.layers[position] for position in made.ordered.layers)
    return replace(made, lineage=replace(made.ordered, layers=places, ranking=lineage.ranking))
