"""Rotates a model's residual stream without changing its function (SliceGPT, arXiv 2401.15024, section 3).

An RMS norm without weights commutes with every rotation. So each norm's weights are folded into the projections that read it,
the stream is turned, and another model's norm weights are put in and divided out of the projections again: two models can be
mixed only where they share these too.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from colbuild.arch import Role, Structure, Tensor, tensors
from colbuild.arch.turning import why_not_turned
from colbuild.errors import BuildError

_READERS = (Role.ATTENTION_IN, Role.FFN_IN, Role.HEAD)
_WRITERS = (Role.ATTENTION_OUT, Role.FFN_OUT)
_SMALLEST = 1e-2
"""Of the mean of a norm's weights: a smaller one is not divided by."""


def check_turnable(structure: Structure) -> None:
    """Raises BuildError for a model whose residual stream cannot be turned, with what can be done instead."""
    reason = why_not_turned(structure)
    if reason is not None:
        raise BuildError(
            f"align: procrustes rotates the residual stream, and {reason}",
            hint="write align: permute, which works for every model",
        )


def turn(
    weights: Mapping[str, torch.Tensor], structure: Structure, rotation: torch.Tensor, norms: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The same function with its residual stream turned.

    Args:
        weights: The model's, in float64.
        structure: Its structure; see `check_turnable`.
        rotation: Orthogonal [hidden, hidden]: a row of the stream becomes that row times this.
        norms: Name of each norm -> the weights that it is to have [hidden].

    Raises:
        BuildError: The model's stream cannot be turned.
    """
    check_turnable(structure)
    turned, before, after = {}, torch.empty(0), torch.empty(0)
    for tensor in tensors(structure):
        weight = weights[tensor.name]
        if tensor.role is Role.NORM:
            before, after = weight, _divisible(norms[tensor.name])
            turned[tensor.name] = after
        elif tensor.role in _READERS and "hidden" in tensor.axes:
            turned[tensor.name] = ((weight * before) @ rotation) / after
        elif tensor.role is Role.EMBEDDING or (tensor.role in _WRITERS and tensor.axes == ("hidden",)):
            turned[tensor.name] = weight @ rotation
        elif tensor.role in _WRITERS and "hidden" in tensor.axes:
            turned[tensor.name] = rotation.T @ weight
        else:
            turned[tensor.name] = weight
    return turned


def folded(weights: Mapping[str, torch.Tensor], structure: Structure, layer: int | None) -> dict[str, torch.Tensor]:
    """The matrices of one layer, or of what is in none, with the weights of the norm before them in those that read it.

    Only so can two models' matrices be compared while their streams do not lie alike yet.
    """
    found: dict[str, torch.Tensor] = {}
    before: torch.Tensor | None = None
    for tensor in tensors(structure):
        if tensor.role is Role.NORM:
            before = weights[tensor.name].double() + structure.architecture.norm_offset
        if tensor.layer != layer or len(tensor.axes) != 2 or "hidden" not in tensor.axes:
            continue
        weight = weights[tensor.name].double()
        if tensor.role in _READERS and before is not None:
            weight = weight * (before if tensor.axes[1] == "hidden" else before[:, None])
        found[tensor.name] = weight
    return found


def _divisible(weights: torch.Tensor) -> torch.Tensor:
    least = _SMALLEST * weights.abs().mean()
    return torch.where(weights.abs() < least, least, weights)


def writes_of(tensor: Tensor, weight: torch.Tensor) -> torch.Tensor:
    """An output projection as [hidden, what it reads], whichever way it is stored."""
    return weight if tensor.axes.index("hidden") == 0 else weight.T
