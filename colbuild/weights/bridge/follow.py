"""Fits output projections so that a model's residual stream follows another's, sublayer by sublayer.

For a model whose attention or FFN computes other features than the model that it imitates (no gate, other positions, other
norms), copied output projections write nonsense. Each is fitted instead: with h the residual stream that it adds to, X the
features that it reads and R the other model's stream behind the same sublayer, W = argmin |h + X W - R|^2 + ridge |W|^2, each
token in units of its stream. As R is the stream itself and not what the other sublayer added, each fit also makes up for what
the ones before it could not do. Pruning methods reconstruct layer by layer like this (such as SlimGPT, arXiv 2412.18110); see
also `colbuild.weights.mixing.refit`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Final

import torch
from torch import nn
from transformers import PreTrainedModel

from colbuild.arch import Role, Structure, Tensor, stream_readers
from colbuild.progress import Progress, Report
from colbuild.weights.bridge.foreign_norms import norm_hooks
from colbuild.weights.prefix.captured import Activations, output_projections, remember, run_hooked

RIDGE: Final = 1.0
"""Of the mean of X^T X's diagonal."""


def streams(
    activations: Activations,
    structure: Structure,
    layers: Sequence[int],
    hidden: int,
    beside: Mapping[str, torch.Tensor] | None = None,
) -> list[torch.Tensor]:
    """The residual stream behind each sublayer of some of a model's layers, [tokens, hidden], attention first.

    Behind the FFN of a layer it is what the next of these layers reads: what lies between them is made up for as well.

    Args:
        activations: What the model's norms read.
        structure: The model's structure, whose blocks have a norm before attention and one before the FFN.
        layers: Positions of layers, rising.
        hidden: How many channels are wanted, the first ones.
        beside: The model's weights where its attention and its FFN run side by side, so that no norm reads the stream between
            them; None where the FFN comes after the attention.
    """
    norms = stream_readers(structure)
    attention = output_projections(structure, Role.ATTENTION_OUT)
    found = []
    for layer, following in zip(layers, [*layers[1:], structure.shape.layers], strict=True):
        if beside is None:
            between = activations.read[norms[2 * layer + 1]]
        else:
            name = attention[layer].name
            between = activations.read[norms[2 * layer]] + activations.read[name] @ beside[name].float().T
            bias = beside.get(name.replace(".weight", ".bias"))
            between = between if bias is None else between + bias.float()
        found += [between, activations.read[norms[2 * following]]]
    return [stream[:, :hidden] for stream in found]


def follow(
    model: PreTrainedModel,
    structure: Structure,
    wanted: Sequence[torch.Tensor],
    windows: torch.Tensor,
    report: Report,
    free: int | None = None,
    foreign: Collection[Role] = (),
) -> None:
    """Fits every output projection of a model, in place, in one pass over all windows together.

    Args:
        model: The model.
        structure: Its structure.
        wanted: The stream behind each of its sublayers, as `streams` gives it.
        windows: The calibration tokens [windows, length] of these.
        report: Told after each sublayer.
        free: How many channels of the residual stream may be written to, the first ones; None: all.
        foreign: Norms that the model has and the other one lacks: each is set in the same pass, so that a norm behind a
            projection keeps the length of what that was fitted to write.
    """
    modules = dict(model.named_modules())
    norms = stream_readers(structure)
    sublayers = [
        tensor
        for pair in zip(
            output_projections(structure, Role.ATTENTION_OUT), output_projections(structure, Role.FFN_OUT), strict=True
        )
        for tensor in pair
    ]
    hooks = norm_hooks(model, structure, foreign)
    for place, (tensor, stream) in enumerate(zip(sublayers, wanted, strict=True)):
        seen: list[torch.Tensor] = []
        norm, projection = (modules[name.rsplit(".", 1)[0]] for name in (norms[place], tensor.name))
        told = Progress(place + 1, len(sublayers), "sublayers", "fitting")
        hooks.append(norm.register_forward_pre_hook(remember(seen)))
        hooks.append(projection.register_forward_pre_hook(_fit(tensor, stream, seen, free, partial(report, told))))
    run_hooked(model, windows, hooks)


def _fit(
    tensor: Tensor, wanted: torch.Tensor, seen: list[torch.Tensor], free: int | None, done: Callable[[], None]
) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    """What sets a projection just before it is used."""

    def hook(projection: nn.Module, arguments: tuple[Any, ...]) -> None:
        read = arguments[0].flatten(0, -2)
        missing = wanted - seen.pop().flatten(0, -2)
        if free is not None:
            missing[:, free:] = 0.0
        # Norms ask for directions: a token of a long stream, such as the first of a text often is, must not count for all.
        share = wanted.square().mean(dim=1, keepdim=True).rsqrt()
        weight, bias = projection.get_parameter("weight"), getattr(projection, "bias", None)
        total = share.square().sum()
        middle = [
            (part * share.square()).sum(dim=0) / total if bias is not None else torch.zeros(1)
            for part in (read, missing)
        ]
        inner, rest = ((part - mean) * share for part, mean in zip((read, missing), middle, strict=True))
        gram = inner.T @ inner
        gram.diagonal().add_(RIDGE * gram.diagonal().mean() + 1e-12)
        found = torch.linalg.solve(gram.double(), (inner.T @ rest).double()).float()
        weight.copy_((found if tensor.axes.index("hidden") == 1 else found.T).to(weight.dtype))
        if bias is not None:
            bias.copy_((middle[1] - middle[0] @ found).to(bias.dtype))
        done()

    return hook
