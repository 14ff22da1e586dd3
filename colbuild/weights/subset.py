"""Subset: the smaller model inside an ordered one, as a prefix of every axis."""

from __future__ import annotations

from dataclasses import replace

import torch

from colbuild.arch import Shape, config_for, norm_sites, tensors
from colbuild.arch.solve import contains
from colbuild.errors import BuildError
from colbuild.weights.checkpoint import Checkpoint, Lineage


def kept_layers(lineage: Lineage, count: int) -> tuple[int, ...]:
    """Which layers (positions in the model) a model of `count` layers keeps: the highest ranked, in their order."""
    ranked = [layer for layer in lineage.ranking if layer in lineage.layers][:count]
    return tuple(position for position, layer in enumerate(lineage.layers) if layer in ranked)


def subset(checkpoint: Checkpoint, shape: Shape) -> Checkpoint:
    """Takes the prefix of every axis and the highest ranked layers.

    Where the hidden width shrinks, each norm is rescaled by the ratio of the root mean squares of what it saw and what it
    will see, so that its output keeps its scale.

    Raises:
        BuildError: The shape does not lie inside the model's.
    """
    if not contains(checkpoint.structure.shape, shape):
        raise BuildError(f"{shape} is not inside {checkpoint.structure.shape}")
    lineage = checkpoint.ordered
    smaller = checkpoint.structure.at(shape)
    kept = kept_layers(lineage, shape.layers)
    site_of = {name: site for site, name in enumerate(norm_sites(checkpoint.structure))}
    rescale = _norm_rescale(lineage.residual, shape.hidden)
    chosen: dict[str, torch.Tensor] = {}
    sites: list[int] = []
    for tensor in tensors(smaller):
        name = tensor.name if tensor.layer is None else at_layer(tensor.name, tensor.layer, kept[tensor.layer])
        part = checkpoint.tensors[name][tuple(slice(0, length) for length in tensor.lengths)]
        if name in site_of:
            # In double, so that a bf16 norm is rounded once.
            part = (part.double() * rescale[site_of[name]]).to(part.dtype)
            sites.append(site_of[name])
        chosen[tensor.name] = part.contiguous()
    return Checkpoint(
        config=config_for(checkpoint.config, smaller),
        structure=smaller,
        tensors=chosen,
        lineage=replace(
            lineage,
            layers=tuple(lineage.layers[position] for position in kept),
            residual=lineage.residual[sites][:, : shape.hidden].contiguous(),
        ),
    )


def _norm_rescale(residual: torch.Tensor, hidden: int) -> torch.Tensor:
    """For each norm site, rms of the kept channels over rms of all of them, [sites]; exactly 1 where all are kept."""
    energy = residual.double()
    if hidden == energy.shape[1]:
        return torch.ones(len(energy), dtype=energy.dtype)
    return (energy[:, :hidden].mean(dim=1) / energy.mean(dim=1).clamp_min(1e-30)).sqrt()


def at_layer(name: str, layer: int, other: int) -> str:
    """The name of the tensor that plays the same part in another layer."""
    return name.replace(f".{layer}.", f".{other}.", 1)
