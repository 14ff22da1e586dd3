"""Subset: the smaller model inside an ordered one, as a prefix of every axis."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from colbuild.arch import NORMS, Role, Shape, Structure, axis_factors, config_for, norm_sites, tensors, wide_norms
from colbuild.arch.solving import contains
from colbuild.errors import BuildError
from colbuild.weights.files.checkpoint import Checkpoint, Energies, Lineage

if TYPE_CHECKING:
    import torch


def kept_layers(lineage: Lineage, count: int) -> tuple[int, ...]:
    """Returns the layers (positions in the model) that a model of `count` layers keeps: the highest ranked, in their order."""
    ranked = [layer for layer in lineage.ranking if layer in lineage.layers][:count]
    return tuple(position for position, layer in enumerate(lineage.layers) if layer in ranked)


@dataclass(frozen=True)
class Part:
    """The place of one tensor of a smaller model in the larger one.

    Attributes:
        name: What it is called in the smaller model.
        source: The larger model's tensor that it is a prefix of.
        whole: For each dimension, the factors of its axis in the larger model, slowest first.
        kept: How many of each the smaller model has.
        scale: What it is multiplied by where the hidden width shrinks; else 1.
        offset: What is added to it before, and taken off after.
    """

    name: str
    source: str
    whole: tuple[tuple[int, ...], ...]
    kept: tuple[tuple[int, ...], ...]
    scale: float = 1.0
    offset: float = 0.0

    @property
    def lengths(self) -> tuple[int, ...]:
        """The tensor's shape in the smaller model."""
        return tuple(prod(factors) for factors in self.kept)

    def of(self, weights: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The tensor among the larger model's weights: a view where that is possible. Gradients flow back to the weights."""
        seen = weights[self.source].view([length for factors in self.whole for length in factors])
        part = seen[tuple(slice(0, length) for factors in self.kept for length in factors)].reshape(self.lengths)
        return part if self.scale == 1.0 else scaled(part, self.scale, self.offset)


def scaled(tensor: torch.Tensor, scale: float, offset: float = 0.0) -> torch.Tensor:
    """(tensor + offset) * scale - offset, rounded once."""
    import torch

    # Apple's GPUs have no double.
    wide = tensor.to(torch.float32 if tensor.device.type == "mps" else torch.float64)
    return ((wide + offset) * scale - offset).to(tensor.dtype)


def parts(structure: Structure, lineage: Lineage, shape: Shape) -> tuple[Part, ...]:
    """Every tensor of the model of `shape` inside an ordered one: the prefix of every axis, and the highest ranked layers.

    Where the hidden width shrinks, each norm is rescaled by the ratio of the root mean squares of what it saw and what it
    will see, so that its output keeps its scale; so is each norm over all heads where these become fewer. An embedding that
    the architecture multiplies by the root of the hidden width is made larger by as much as that shrinks; the last norm is made
    smaller by it where the head is the embedding.

    Raises:
        BuildError: The shape does not lie inside the model's.
    """
    if not contains(structure.shape, shape):
        raise BuildError(f"{shape} is not inside {structure.shape}")
    kept = kept_layers(lineage, shape.layers)
    scales = _scales(structure, lineage, shape)
    before, inside = structure.lengths, structure.at(shape).lengths
    found = []
    for tensor in tensors(structure.at(shape)):
        source = tensor.name if tensor.layer is None else at_layer(tensor.name, tensor.layer, kept[tensor.layer])
        whole, part = (tuple(axis_factors(axis, lengths) for axis in tensor.axes) for lengths in (before, inside))
        offset = structure.architecture.norm_offset if tensor.role in NORMS else 0.0
        found.append(Part(tensor.name, source, whole, part, scales.get(source, 1.0), offset))
    return tuple(found)


def subset(checkpoint: Checkpoint, shape: Shape) -> Checkpoint:
    """The smaller model of a shape inside an ordered one, as `parts` says.

    Raises:
        BuildError: The shape does not lie inside the model's.
    """
    chosen = parts(checkpoint.structure, checkpoint.ordered, shape)
    facts = subset_facts(checkpoint, shape)
    return replace(facts, tensors={part.name: part.of(checkpoint.tensors).contiguous() for part in chosen})


def subset_facts(checkpoint: Checkpoint, shape: Shape) -> Checkpoint:
    """Returns the checkpoint without its weights."""
    lineage, structure = checkpoint.ordered, checkpoint.structure
    smaller, kept = structure.at(shape), kept_layers(lineage, shape.layers)

    def places(names: Callable[[Structure], list[str]]) -> list[int]:
        """Returns the places of the smaller model's norms among those of the larger one."""
        of_larger, wanted = {name: place for place, name in enumerate(names(structure))}, set(names(smaller))
        return [
            of_larger[tensor.name if tensor.layer is None else at_layer(tensor.name, tensor.layer, kept[tensor.layer])]
            for tensor in tensors(smaller)
            if tensor.name in wanted
        ]

    heads = None if lineage.heads is None else lineage.heads[places(wide_norms)][:, : shape.kv_heads]
    return Checkpoint(
        config=config_for(checkpoint.config, smaller, kept),
        structure=smaller,
        tensors={},
        lineage=replace(
            lineage,
            layers=tuple(lineage.layers[position] for position in kept),
            residual=lineage.residual[places(norm_sites)][:, : shape.hidden],
            heads=heads,
        ),
    )


def _scales(structure: Structure, lineage: Lineage, shape: Shape) -> dict[str, float]:
    """Tensor -> what it is multiplied by at another hidden width, or with fewer heads; nothing where all are kept."""
    found: dict[str, float] = {}
    if lineage.heads is not None and shape.kv_heads < structure.shape.kv_heads:
        found |= zip(wide_norms(structure), _rescale(lineage.heads, shape.kv_heads), strict=True)
    if shape.hidden == structure.shape.hidden:
        return found
    sites = norm_sites(structure)
    found |= zip(sites, _rescale(lineage.residual, shape.hidden), strict=True)
    if structure.architecture.scales_embedding:
        more = (structure.shape.hidden / shape.hidden) ** 0.5
        found |= {tensor.name: more for tensor in tensors(structure) if tensor.role is Role.EMBEDDING}
        if ("tie_word_embeddings", True) in structure.flags:
            found[sites[-1]] /= more
    return found


def _rescale(energy: Energies, kept: int) -> list[float]:
    """The ratio of the root mean squares of the first channels and of all, for each norm [norms, channels]."""
    wide = np.asarray(energy, dtype=np.float64)
    ratios: list[float] = np.sqrt(wide[:, :kept].mean(axis=1) / wide.mean(axis=1).clip(1e-30)).tolist()
    return ratios


def at_layer(name: str, layer: int, other: int) -> str:
    """The name of the tensor that plays the same part in another layer."""
    return name.replace(f".{layer}.", f".{other}.", 1)
