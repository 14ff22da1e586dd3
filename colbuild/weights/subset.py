"""Subset: the smaller model inside an ordered one, as a prefix of every axis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from colbuild.arch import Shape, Structure, config_for, norm_sites, tensors
from colbuild.arch.solve import contains
from colbuild.errors import BuildError
from colbuild.weights.checkpoint import Checkpoint, Lineage


def kept_layers(lineage: Lineage, count: int) -> tuple[int, ...]:
    """Which layers (positions in the model) a model of `count` layers keeps: the highest ranked, in their order."""
    ranked = [layer for layer in lineage.ranking if layer in lineage.layers][:count]
    return tuple(position for position, layer in enumerate(lineage.layers) if layer in ranked)


@dataclass(frozen=True)
class Part:
    """Where one tensor of a smaller model lies in the larger one.

    Attributes:
        name: What it is called in the smaller model.
        source: The larger model's tensor that it is a prefix of.
        index: Which part of that: one slice for each dimension.
        scale: A norm's factor where the hidden width shrinks; else 1.
    """

    name: str
    source: str
    index: tuple[slice, ...]
    scale: float

    def of(self, weights: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The tensor among the larger model's weights: a view where it is not scaled. Gradients flow back to the weights."""
        part = weights[self.source][self.index]
        if self.scale == 1.0:
            return part
        # In double, so that a bf16 norm is rounded once. Apple's GPUs have none.
        wide = torch.float32 if part.device.type == "mps" else torch.float64
        return (part.to(wide) * self.scale).to(part.dtype)


def parts(structure: Structure, lineage: Lineage, shape: Shape) -> tuple[Part, ...]:
    """Every tensor of the model of `shape` inside an ordered one: the prefix of every axis, and the highest ranked layers.

    Where the hidden width shrinks, each norm is rescaled by the ratio of the root mean squares of what it saw and what it
    will see, so that its output keeps its scale.

    Raises:
        BuildError: The shape does not lie inside the model's.
    """
    if not contains(structure.shape, shape):
        raise BuildError(f"{shape} is not inside {structure.shape}")
    kept = kept_layers(lineage, shape.layers)
    rescale = dict(zip(norm_sites(structure), _norm_rescale(lineage.residual, shape.hidden).tolist(), strict=True))
    found = []
    for tensor in tensors(structure.at(shape)):
        source = tensor.name if tensor.layer is None else at_layer(tensor.name, tensor.layer, kept[tensor.layer])
        index = tuple(slice(0, length) for length in tensor.lengths)
        found.append(Part(tensor.name, source, index, rescale.get(source, 1.0)))
    return tuple(found)


def subset(checkpoint: Checkpoint, shape: Shape) -> Checkpoint:
    """The smaller model of a shape inside an ordered one, as `parts` says.

    Raises:
        BuildError: The shape does not lie inside the model's.
    """
    lineage = checkpoint.ordered
    chosen = parts(checkpoint.structure, lineage, shape)
    smaller = checkpoint.structure.at(shape)
    site_of = {name: site for site, name in enumerate(norm_sites(checkpoint.structure))}
    sites = [site_of[part.source] for part in chosen if part.source in site_of]
    return Checkpoint(
        config=config_for(checkpoint.config, smaller),
        structure=smaller,
        tensors={part.name: part.of(checkpoint.tensors).contiguous() for part in chosen},
        lineage=replace(
            lineage,
            layers=tuple(lineage.layers[position] for position in kept_layers(lineage, shape.layers)),
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
