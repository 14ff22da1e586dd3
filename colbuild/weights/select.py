"""Choosing entries along named axes: what subset and reordering have in common."""

from __future__ import annotations

from collections.abc import Mapping

import torch

Selection = Mapping[str, torch.Tensor]
"""Base axis ("hidden", "ffn", "heads", "kv_heads") -> indices to keep, in their new order. Axes left out are kept whole."""


def select(tensor: torch.Tensor, axes: tuple[str, ...], selection: Selection, head_dim: int) -> torch.Tensor:
    """Picks entries of a tensor along its named axes; "heads*head_dim" follows "heads", head by head.

    Args:
        tensor: One dimension per axis.
        axes: Names of its dimensions, as in the architecture's table.
        selection: Which entries to keep on each base axis.
        head_dim: Width of one head.

    Returns:
        The chosen part, in memory of its own whenever anything was selected.
    """
    for dimension, axis in enumerate(axes):
        base = axis.split("*")[0]
        if base not in selection:
            continue
        index = selection[base]
        if axis != base:
            index = (index[:, None] * head_dim + torch.arange(head_dim)).reshape(-1)
        tensor = tensor.index_select(dimension, index)
    return tensor
