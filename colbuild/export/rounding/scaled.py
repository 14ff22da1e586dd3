"""Parameters of a rounded model whose scales are trained.

Codes and zeros stay; each block's scale, and each vector, moves by what one number says. These gains are 0 where the training
begins, relative to what they change, and as few as the blocks: of 100 million weights in blocks of 32, three million.
(After EfficientQAT, arXiv 2407.11062, section 3.3, and Norm Tweaking, arXiv 2309.02784.)

A matrix of a graph is some rows of a parameter: models have queries, keys and values stacked, or lying on their side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch.nn.functional import pad

from colbuild.export.graph.decoder import Origin
from colbuild.export.rounding.block_rounding import Blocks


@dataclass(frozen=True, eq=False)
class Part:
    """Some rows of a parameter, or of its transpose, that are a matrix of the graph.

    Attributes:
        matrix: The matrix.
        rows: Places in the parameter.
        blocks: How the matrix was rounded.
    """

    matrix: str
    rows: torch.Tensor
    blocks: Blocks

    def on(self, device: torch.device) -> Part:
        """The same on a device."""
        blocks, zeros = self.blocks, None if self.blocks.zeros is None else self.blocks.zeros.to(device)
        moved = replace(blocks, codes=blocks.codes.to(device), scales=blocks.scales.to(device), zeros=zeros)
        return replace(self, rows=self.rows.to(device), blocks=moved)

    def scaled(self, gains: torch.Tensor) -> Blocks:
        """The matrix with its scales changed by gains, one for each block, in one row."""
        scales = self.blocks.scales
        return replace(self.blocks, scales=scales * (1.0 + gains.view_as(scales)))

    def gradient(self, gradient: torch.Tensor) -> torch.Tensor:
        """That of the gains, in one row, for that of the matrix [rows, columns]."""
        blocks = self.blocks
        whole = pad(gradient, (0, blocks.scales.shape[1] * blocks.block - blocks.columns))
        return (whole.view_as(blocks.codes) * blocks.parts()).sum(dim=2).flatten()


@dataclass(frozen=True, eq=False)
class ScaledParameters:
    """The trained parameters in place of a model's; see `colbuild.train.loop.student.Trained`.

    Attributes:
        parts: Name of a parameter -> the parts that make up all of it.
        turned: Parameters whose transpose is rounded.
        vectors: Name of a vector -> what it is before it is trained.
    """

    parts: Mapping[str, tuple[Part, ...]]
    turned: frozenset[str]
    vectors: Mapping[str, torch.Tensor]

    def on(self, device: torch.device) -> ScaledParameters:
        """The same on a device."""
        parts = {name: tuple(part.on(device) for part in every) for name, every in self.parts.items()}
        return replace(self, parts=parts, vectors={name: one.to(device) for name, one in self.vectors.items()})

    def start(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        """The gains of a parameter that change nothing."""
        return torch.zeros(sum(self._counts(name)), device=weight.device)

    def computed(self, name: str, gains: torch.Tensor) -> torch.Tensor:
        """The parameter that some gains make, in float32."""
        if name in self.vectors:
            return self.vectors[name] + gains * _unit(self.vectors[name])
        parts = self.parts[name]
        upright = torch.empty(sum(len(part.rows) for part in parts), parts[0].blocks.columns, device=gains.device)
        for part, some in self._each(name, gains):
            upright[part.rows] = part.scaled(some).values()
        return upright.T if name in self.turned else upright

    def gradient(self, name: str, gradient: torch.Tensor) -> torch.Tensor:
        """That of the gains, for that of the parameter."""
        if name in self.vectors:
            return gradient.float() * _unit(self.vectors[name])
        upright = (gradient.T if name in self.turned else gradient).float()
        return torch.cat([part.gradient(upright[part.rows]) for part in self.parts[name]])

    def matrices(self, gains: Mapping[str, torch.Tensor]) -> dict[str, Blocks]:
        """The graph's matrices that some gains make, by name."""
        return {part.matrix: part.scaled(some) for name in self.parts for part, some in self._each(name, gains[name])}

    def _counts(self, name: str) -> list[int]:
        if name in self.vectors:
            return [self.vectors[name].numel()]
        return [part.blocks.scales.numel() for part in self.parts[name]]

    def _each(self, name: str, gains: torch.Tensor) -> list[tuple[Part, torch.Tensor]]:
        return list(zip(self.parts[name], torch.split(gains, self._counts(name)), strict=True))


def scaled_parameters(
    matrices: Mapping[str, Blocks], origins: Mapping[str, Origin], vectors: Mapping[str, torch.Tensor]
) -> ScaledParameters:
    """The parameters that some matrices of a graph are parts of, and the model's vectors."""
    parts: dict[str, tuple[Part, ...]] = {}
    for name, blocks in matrices.items():
        origin = origins[name]
        parts[origin.parameter] = (*parts.get(origin.parameter, ()), Part(name, origin.rows, blocks))
    turned = frozenset(origins[name].parameter for name in matrices if origins[name].turned)
    return ScaledParameters(parts, turned, {name: vector.float() for name, vector in vectors.items()})


def _unit(vector: torch.Tensor) -> torch.Tensor:
    """What a gain of 1 adds to each number of a vector: their mean size."""
    return vector.abs().mean()
