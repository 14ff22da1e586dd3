"""Chooses entries along named axes, for subset, reordering and mixing.

A dimension may be a product of axes, such as "3*heads*head_dim". Seen with one dimension for each factor, a tensor is chosen
from along simple axes only, however its parts are fused.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch

from colbuild.arch import axis_factors

Selection = Mapping[str, torch.Tensor]
"""Simple axis ("hidden", "ffn", "heads", "kv_heads") -> indices to keep, in their new order. Axes left out are kept whole."""


def select(
    tensor: torch.Tensor, axes: tuple[str, ...], selection: Selection, lengths: Mapping[str, int]
) -> torch.Tensor:
    """Picks entries of a tensor along its named axes; "heads*head_dim" follows "heads", head by head.

    Args:
        tensor: One dimension per axis.
        axes: Names of its dimensions, as in the architecture's table.
        selection: Which entries to keep on each simple axis.
        lengths: Every simple axis's length, before.

    Returns:
        The chosen part, in memory of its own whenever anything was selected.
    """
    names = [factor for axis in axes for factor in axis.split("*")]
    if not selection.keys() & set(names):
        return tensor
    whole = tensor.reshape([length for axis in axes for length in axis_factors(axis, lengths)])
    for dimension, name in enumerate(names):
        if name in selection:
            whole = whole.index_select(dimension, selection[name])
    chosen = {**lengths, **{name: len(index) for name, index in selection.items()}}
    return whole.reshape([prod(axis_factors(axis, chosen)) for axis in axes])
