"""Checks weights for NaN and infinite values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from colbuild.errors import BuildError
from colbuild.weights.files.arrays import Array, all_finite

if TYPE_CHECKING:
    import torch


def finite(weights: torch.Tensor | Array) -> bool:
    """Returns whether every entry is a finite number."""
    if isinstance(weights, np.ndarray):
        return all_finite(weights)
    # A sum is one pass over memory, and is no number if an entry is none; only then is it looked at closely. It is of the
    # entries' own type: torch adds bfloat16 up in float32 all the same, and three times as fast as when asked to.
    return bool(weights.sum().isfinite()) or bool(weights.isfinite().all())


def check_numbers(weights: Mapping[str, torch.Tensor] | Mapping[str, Array], path: Path) -> None:
    """Looks at all weights of a file.

    Raises:
        BuildError: An entry is NaN or infinite.
    """
    for name, tensor in weights.items():
        if not finite(tensor):
            raise no_numbers(name, path)


def no_numbers(name: str, path: Path) -> BuildError:
    """The error for a tensor of a file that holds NaN or infinities."""
    return BuildError(
        f"{name} in {path} contains NaN or infinite weights",
        hint="fetch or train the model again",
    )
