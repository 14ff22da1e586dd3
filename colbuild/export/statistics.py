"""What a model's matrices multiply, and how much its predictions depend on what comes out: measured on calibration text.

For a matrix with inputs x and outputs y = W x, an error D of W moves the predictions, to second order and with inputs and
gradients taken as independent (K-FAC, arXiv 1503.05671, section 3), by KL = 1/2 sum_n E[g_n^2] (D H D^T)_nn nats a token, where
H = E[x x^T] and g is the gradient at y of the loss on tokens drawn from the model itself. Both are gathered in one pass
forward and back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from colbuild.progress import Progress, Report

_SEED: Final = 20_260_103
_FUSED: Final[Mapping[str, tuple[str, ...]]] = {
    "q_proj": ("c_attn", "query_key_value"),
    "k_proj": ("c_attn", "query_key_value"),
    "v_proj": ("c_attn", "query_key_value"),
    "o_proj": ("c_proj", "dense"),
    "up_proj": ("c_fc", "dense_h_to_4h"),
    "down_proj": ("c_proj", "dense_4h_to_h"),
}
"""A matrix in a graph -> what the module that it comes from may be called."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What one matrix saw.

    Attributes:
        moments: E[x x^T], float32 [columns, columns].
        pull: E[g^2] of each output, float32 [rows].
    """

    moments: torch.Tensor
    pull: torch.Tensor


def gather(model: PreTrainedModel, windows: torch.Tensor, report: Report) -> dict[str, Seen]:
    """Runs a model over windows [windows, length + 1]; for each matrix in its blocks, by module name, what it saw."""
    modules = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not model.get_output_embeddings()
    }
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    generator = torch.Generator().manual_seed(_SEED)
    moments: dict[str, torch.Tensor] = {}
    pulls: dict[str, torch.Tensor] = {}
    hooks = [model.get_input_embeddings().register_forward_hook(lambda _module, _read, made: made.requires_grad_())]
    for name, module in modules.items():
        hooks.append(module.register_forward_pre_hook(_adding_moments(moments, name)))
        hooks.append(module.register_full_backward_hook(_adding_pull(pulls, name)))
    try:
        for done, window in enumerate(windows):
            report(Progress(done, len(windows), "windows", "calibrating"))
            logits = model(input_ids=window[None, :-1], use_cache=False).logits[0].float()
            drawn = torch.multinomial(logits.detach().softmax(dim=1), 1, generator=generator)[:, 0]
            nn.functional.cross_entropy(logits, drawn, reduction="sum").backward()  # type: ignore[no-untyped-call]
    finally:
        for hook in hooks:
            hook.remove()
    tokens = windows[:, 1:].numel()
    return {name: Seen(moments[name] / tokens, pulls[name] / tokens) for name in modules}


def _adding_moments(found: dict[str, torch.Tensor], name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def hook(_: nn.Module, arguments: tuple[Any, ...]) -> None:
        read = arguments[0].detach().flatten(0, -2).float()
        found[name] = found.get(name, torch.zeros(())) + read.T @ read

    return hook


def _adding_pull(
    found: dict[str, torch.Tensor], name: str
) -> Callable[[nn.Module, tuple[Any, ...], tuple[Any, ...]], None]:
    def hook(_: nn.Module, __: tuple[Any, ...], gradients: tuple[Any, ...]) -> None:
        squares = gradients[0].flatten(0, -2).float().square().sum(dim=0)
        found[name] = found.get(name, torch.zeros(())) + squares

    return hook


def seen_by(weight: str, statistics: Mapping[str, Seen]) -> Seen | None:
    """What the matrix of a graph saw; None for one that was not looked at, as the head.

    A graph has queries, keys and values apart where a model has them stacked: these read the same, and what depends on each
    is taken to be the mean.
    """
    module = weight.removesuffix(".weight")
    if module in statistics:
        return statistics[module]
    stem, _, kind = module.rpartition(".")
    for name in _FUSED.get(kind, ()):
        if (found := statistics.get(f"{stem}.{name}")) is not None:
            if kind in ("o_proj", "up_proj", "down_proj"):
                return found
            return Seen(found.moments, found.pull.mean().expand(len(found.pull) // 3))
    return None


def harm(weight: torch.Tensor, rounded: torch.Tensor, seen: Seen) -> float:
    """How far predictions move, in nats a token, when a matrix [rows, columns] is rounded; to second order."""
    error = rounded - weight
    return float(0.5 * ((error @ seen.moments * error).sum(dim=1) * seen.pull).sum())
