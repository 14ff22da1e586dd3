"""Ordering: the same function with every axis sorted by importance, so that a prefix is the best subset.

Widths are permuted: hidden channels once for the whole model, FFN channels and heads within each layer (heads in whole
kv groups). Layers stay where they are and are ranked instead: a shallower model keeps the first of the ranking.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from colbuild.arch import Structure, tensors, wide_norms
from colbuild.weights.files.checkpoint import Checkpoint, Lineage
from colbuild.weights.prefix.importance import Importance
from colbuild.weights.prefix.selection import select


def order(checkpoint: Checkpoint, importance: Importance, ranking: Sequence[int] | None = None) -> Checkpoint:
    """Permutes a model's axes by importance, without changing its function.

    Args:
        checkpoint: The model.
        importance: Of every axis.
        ranking: Its layers, most important first; by default as `importance` has them.

    Returns:
        The permuted model with its lineage: layers 0..n-1, their ranking, and the permuted residual energies.
    """
    structure = checkpoint.structure
    hidden = torch.argsort(importance.hidden, descending=True, stable=True)
    permuted, lengths = {}, structure.lengths
    for tensor in tensors(structure):
        selection = {"hidden": hidden}
        if tensor.layer is not None:
            heads, kv_heads = head_permutation(importance.heads[tensor.layer], structure)
            ffn = torch.argsort(importance.ffn[tensor.layer], descending=True, stable=True)
            selection |= {"ffn": ffn, "heads": heads, "kv_heads": kv_heads}
        permuted[tensor.name] = select(checkpoint.tensors[tensor.name], tensor.axes, selection, lengths)
    by_influence = torch.argsort(importance.layers, descending=True, stable=True).tolist()
    lineage = Lineage(
        layers=tuple(range(structure.shape.layers)),
        ranking=tuple(by_influence if ranking is None else ranking),
        residual=importance.residual[:, hidden],
        heads=_sorted_groups(importance, structure),
    )
    return replace(checkpoint, tensors=permuted, lineage=lineage)


def _sorted_groups(importance: Importance, structure: Structure) -> torch.Tensor | None:
    """The energies of groups of heads in the order that these get; one row for each norm over all heads."""
    if importance.groups is None:
        return None
    names = set(wide_norms(structure))
    layers = [tensor.layer for tensor in tensors(structure) if tensor.name in names]
    orders = [head_permutation(importance.heads[layer or 0], structure)[1] for layer in layers]
    return torch.stack([row[order] for row, order in zip(importance.groups, orders, strict=True)])


def head_permutation(scores: torch.Tensor, structure: Structure) -> tuple[torch.Tensor, torch.Tensor]:
    """Sorts heads in whole groups: (order of query heads [heads], order of kv heads [kv_heads]).

    Args:
        scores: Importance of each query head, [heads].
        structure: Gives how many query heads share a kv head.
    """
    grouped = scores.reshape(structure.shape.kv_heads, -1)
    kv_heads = torch.argsort(grouped.sum(dim=1), descending=True, stable=True)
    within = torch.argsort(grouped, dim=1, descending=True, stable=True)
    heads = (kv_heads[:, None] * grouped.shape[1] + within[kv_heads]).reshape(-1)
    return heads, kv_heads
