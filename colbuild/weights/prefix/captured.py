"""Activations of a model on calibration tokens: the stream, inputs of output projections, outputs of blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from colbuild.arch import Role, Structure, Tensor, stream_readers, tensors


@dataclass(frozen=True)
class Activations:
    """Activations of all calibration tokens, in float32.

    Attributes:
        read: Name of the weight of what reads the stream, or of an output projection -> what it reads [tokens, width].
        added: What each block adds to the residual stream [tokens, hidden], in the order of layers.
    """

    read: dict[str, torch.Tensor] = field(default_factory=dict)
    added: list[torch.Tensor] = field(default_factory=list)


def output_projections(structure: Structure, role: Role) -> list[Tensor]:
    """The matrices through which attention or FFNs write into the residual stream, one for each layer."""
    return [tensor for tensor in tensors(structure) if tensor.role is role and len(tensor.axes) == 2]


def collect(model: PreTrainedModel, structure: Structure, windows: torch.Tensor) -> Activations:
    """Runs a model over windows [windows, length]; memory grows with tokens times layers times width."""
    found = Activations()
    modules = dict(model.named_modules())
    projections = [
        *output_projections(structure, Role.ATTENTION_OUT),
        *output_projections(structure, Role.FFN_OUT),
    ]
    names = [*stream_readers(structure), *(tensor.name for tensor in projections)]
    hooks = [modules[name.rsplit(".", 1)[0]].register_forward_pre_hook(_keep(found, name)) for name in names]
    stem = projections[0].name.split(".0.")[0]
    blocks = [modules[f"{stem}.{layer}"] for layer in range(structure.shape.layers)]
    hooks += [block.register_forward_hook(_keep_added(found)) for block in blocks]
    run_hooked(model, windows, hooks)
    return found


def run_hooked(model: PreTrainedModel, windows: torch.Tensor, hooks: Iterable[RemovableHandle]) -> None:
    """Runs a model over windows [windows, length] for what hooks see there, and takes them away."""
    try:
        with torch.no_grad():
            model(input_ids=windows, use_cache=False, logits_to_keep=1)
    finally:
        for hook in hooks:
            hook.remove()


def remember(seen: list[torch.Tensor]) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    """A hook that keeps what a module read last."""

    def hook(_: nn.Module, arguments: tuple[Any, ...]) -> None:
        seen[:] = [arguments[0]]

    return hook


def _keep(found: Activations, name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def hook(_: nn.Module, arguments: tuple[Any, ...]) -> None:
        found.read[name] = arguments[0].detach().flatten(0, -2).float().clone()

    return hook


def _keep_added(found: Activations) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
    def hook(_: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        after = output[0] if isinstance(output, tuple) else output
        found.added.append((after - arguments[0]).detach().flatten(0, -2).float())

    return hook
