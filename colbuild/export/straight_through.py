"""Parameters of a model that compute rounded while they are trained.

A matrix of a graph is some rows of a parameter: models have queries, keys and values stacked, or lying on their side. Each row
is rounded to the steps that were found for its matrix; the steps stay, what moves are the codes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch

from colbuild.export.decoder import Origin
from colbuild.export.rounding import Blocks, inside_steps, round_to

Change = Callable[[torch.Tensor, Blocks], torch.Tensor]
"""(rows, their steps) -> rows."""


@dataclass(frozen=True, eq=False)
class Part:
    """Some rows of a parameter, or of its transpose, with the steps that they are rounded to."""

    rows: torch.Tensor
    steps: Blocks

    def on(self, device: torch.device) -> Part:
        """The same on a device."""
        steps, zeros = self.steps, None if self.steps.zeros is None else self.steps.zeros.to(device)
        moved = replace(steps, codes=steps.codes.to(device), scales=steps.scales.to(device), zeros=zeros)
        return Part(self.rows.to(device), moved)


@dataclass(frozen=True, eq=False)
class RoundedParameters:
    """What computes in the place of a model's parameters.

    Attributes:
        parts: Name of a parameter -> its parts, which make up all of it.
        turned: Parameters whose transpose is rounded.
    """

    parts: Mapping[str, tuple[Part, ...]]
    turned: frozenset[str]

    def computed(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        """A parameter rounded; one that has no parts as it is."""
        return self._each(name, weight, lambda rows, steps: round_to(rows, steps).values())

    def inside(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        """The values to train a parameter from: as near as they can be, and rounded to the codes that were found."""
        return self._each(name, weight, inside_steps)

    def on(self, device: torch.device) -> RoundedParameters:
        """The same for weights on a device."""
        parts = {name: tuple(part.on(device) for part in every) for name, every in self.parts.items()}
        return replace(self, parts=parts)

    def _each(self, name: str, weight: torch.Tensor, change: Change) -> torch.Tensor:
        if name not in self.parts:
            return weight
        upright = weight.T if name in self.turned else weight
        changed = upright.clone()
        for part in self.parts[name]:
            # Positions beyond a package's context are not in its graph.
            rows = part.rows[: len(part.steps.codes)]
            changed[rows] = change(upright[rows], part.steps)
        return changed.T if name in self.turned else changed


def rounded_parameters(matrices: Mapping[str, Blocks], origins: Mapping[str, Origin]) -> RoundedParameters:
    """The parameters that some matrices of a graph are parts of."""
    parts: dict[str, tuple[Part, ...]] = {}
    for name, steps in matrices.items():
        origin = origins[name]
        parts[origin.parameter] = (*parts.get(origin.parameter, ()), Part(origin.rows, steps))
    return RoundedParameters(parts, frozenset(origins[name].parameter for name in matrices if origins[name].turned))
