"""Refits a narrowed FFN's output projection so that its output matches the wider one's.

For each layer, with X what the narrowed FFN feeds into its output projection W on calibration tokens, and Y what the wider
model's FFN makes of the same input: W + (Y - X W)^T X (X^T X + ridge)^-1, the ridge regression of what is missing, as pruning
methods reconstruct layers (such as SlimGPT, arXiv 2412.18110, and Wanda++'s regional step). Layers are fitted from the first
on, each on what the fitted ones before it pass on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import nn
from transformers import PreTrainedModel

from colbuild.arch import Role, Structure, Tensor, tensors
from colbuild.progress import Progress, Report
from colbuild.weights.prefix.captured import remember, run_hooked

RIDGE: Final = 0.1
"""Of the mean of X^T X's diagonal. On few tokens a smaller one fits their noise."""


def refit(
    model: PreTrainedModel,
    structure: Structure,
    wider: PreTrainedModel,
    layers: Sequence[int],
    windows: torch.Tensor,
    report: Report,
) -> dict[str, torch.Tensor]:
    """Fits every FFN's output projection of a model, in place, in one pass over all windows together.

    Args:
        model: The narrowed model.
        structure: Its structure.
        wider: The model whose FFNs are imitated; equally wide outside of them.
        layers: For each layer of the narrowed model, its position in the wider one.
        windows: Calibration tokens [windows, length]; what all of them make of one layer is in memory at once.
        report: Told after each layer.

    Returns:
        The fitted projections in float32, by their tensors' names.
    """
    fitted: dict[str, torch.Tensor] = {}
    own, other = dict(model.named_modules()), dict(wider.named_modules())
    hooks = []
    projections = [one for one in tensors(structure) if one.role is Role.FFN_OUT and len(one.axes) == 2]
    for tensor, position in zip(projections, layers, strict=True):
        projection = tensor.name.rsplit(".", 1)[0]
        block = projection.rsplit(".", 1)[0]
        theirs = other[block.replace(f".{tensor.layer}.", f".{position}.", 1)]
        seen: list[torch.Tensor] = []
        hooks.append(own[block].register_forward_pre_hook(remember(seen)))

        def done(tensor: Tensor = tensor) -> None:
            fitted[tensor.name] = _weight(own, tensor).detach().float().clone()
            report(Progress(len(fitted), len(projections), "layers", "refitting"))

        hooks.append(own[projection].register_forward_pre_hook(_fit(tensor, theirs, seen, done)))
    run_hooked(model, windows, hooks)
    return fitted


def _fit(
    tensor: Tensor, theirs: nn.Module, seen: list[torch.Tensor], done: Callable[[], None]
) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    """What changes a projection just before it is used."""

    def hook(projection: nn.Module, arguments: tuple[Any, ...]) -> None:
        read = arguments[0]
        missing = theirs(seen.pop()) - projection.forward(read)
        inner, rest = (each.flatten(0, -2).double() for each in (read, missing))
        gram = inner.T @ inner
        gram.diagonal().add_(RIDGE * gram.diagonal().mean())
        change = torch.linalg.solve(gram, inner.T @ rest)
        weight = projection.get_parameter("weight")
        weight.add_((change if tensor.axes.index("hidden") == 1 else change.T).to(weight.dtype))
        done()

    return hook


def _weight(modules: dict[str, nn.Module], tensor: Tensor) -> torch.Tensor:
    owner, leaf = tensor.name.rsplit(".", 1)
    return modules[owner].get_parameter(leaf)
