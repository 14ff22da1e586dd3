"""Norms that the model before had none of, set so that they change as little as possible."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from colbuild.arch import Role, Structure, tensors
from colbuild.weights.activations import run_hooked


def fit_norms(model: PreTrainedModel, structure: Structure, roles: Collection[Role], windows: torch.Tensor) -> None:
    """Gives each norm, in place, the root mean square of what it reads: its output is then as long as its input, on average.

    Args:
        model: A model some of whose norms have no meaning yet.
        structure: Its structure.
        roles: Which ones: over each head's queries or keys, over what a branch writes.
        windows: Calibration tokens [windows, length].
    """
    modules, offset = dict(model.named_modules()), structure.architecture.norm_offset
    names = [tensor.name for tensor in tensors(structure) if tensor.role in roles]
    hooks = [modules[name.rsplit(".", 1)[0]].register_forward_pre_hook(_set_length(offset)) for name in names]
    run_hooked(model, windows, hooks)


def _set_length(offset: float) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def hook(norm: nn.Module, arguments: tuple[Any, ...]) -> None:
        lengths = arguments[0].float().square().mean(dim=-1).sqrt()
        norm.get_parameter("weight").fill_(float(lengths.mean()) - offset)

    return hook
