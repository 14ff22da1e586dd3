"""Norms that only one of two architectures has.

Those that the old model lacks are set so that they change as little as possible. Those that the new one has no place for are
replaced by constants (`colbuild.weights.bridge.translation`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from colbuild.arch import Role, Structure, tensors
from colbuild.weights.prefix.captured import run_hooked


def fit_norms(model: PreTrainedModel, structure: Structure, roles: Collection[Role], windows: torch.Tensor) -> None:
    """Gives each norm, in place, the root mean square of what it reads: its output is then as long as its input, on average.

    Args:
        model: A model some of whose norms have no meaning yet.
        structure: Its structure.
        roles: Which ones: over each head's queries or keys, over what a branch writes.
        windows: Calibration tokens [windows, length].
    """
    run_hooked(model, windows, norm_hooks(model, structure, roles))


def norm_hooks(model: PreTrainedModel, structure: Structure, roles: Collection[Role]) -> list[RemovableHandle]:
    """Returns hooks that do so in the next forward pass, just before each norm."""
    modules, offset = dict(model.named_modules()), structure.architecture.norm_offset
    names = [tensor.name for tensor in tensors(structure) if tensor.role in roles]
    return [modules[name.rsplit(".", 1)[0]].register_forward_pre_hook(_set_length(offset)) for name in names]


def _set_length(offset: float) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def hook(norm: nn.Module, arguments: tuple[Any, ...]) -> None:
        lengths = arguments[0].float().square().mean(dim=-1).sqrt()
        norm.get_parameter("weight").fill_(float(lengths.mean()) - offset)

    return hook


def inverse_lengths(
    model: PreTrainedModel, structure: Structure, roles: Collection[Role], windows: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Returns the best constants for division by the length of each norm's input; for heads, one number for each head.

    Args:
        model: A model with such norms.
        structure: Its structure.
        roles: Which norms: over each head's queries or keys, over what a branch writes.
        windows: Calibration tokens [windows, length].

    Returns:
        Name of the norm's weight -> the number c, least squares of c x against x / length(x).
    """
    modules, found = dict(model.named_modules()), dict[str, torch.Tensor]()
    hooks = []
    for tensor in tensors(structure):
        if tensor.role not in roles:
            continue
        owner = tensor.name.rsplit(".", 1)[0]
        if tensor.role is Role.HEAD_NORM:
            # Before heads are turned to where the norm sees them, which architectures do in other orders.
            hook = _note_length(found, tensor.name, structure.shape.head_dim)
            hooks.append(modules[owner.replace("_norm", "_proj")].register_forward_hook(hook))
        else:
            hooks.append(modules[owner].register_forward_pre_hook(_note_read(found, tensor.name)))
    run_hooked(model, windows, hooks)
    return found


def _note_length(
    found: dict[str, torch.Tensor], name: str, width: int
) -> Callable[[nn.Module, tuple[Any, ...], torch.Tensor], None]:
    def hook(_: nn.Module, arguments: tuple[Any, ...], output: torch.Tensor) -> None:
        found[name] = _inverse(output.float().reshape(-1, output.shape[-1] // width, width))

    return hook


def _note_read(found: dict[str, torch.Tensor], name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def hook(_: nn.Module, arguments: tuple[Any, ...]) -> None:
        found[name] = _inverse(arguments[0].float().flatten(0, -2))

    return hook


def _inverse(read: torch.Tensor) -> torch.Tensor:
    """The number, for vectors [tokens, …, width]."""
    lengths = read.square().mean(dim=-1).sqrt()
    return lengths.sum(dim=0) / lengths.square().sum(dim=0).clamp_min(1e-12)
