"""The tensors of a training's checkpoint, in one safetensors file: weights, the optimiser's averages, random state."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open

from colbuild.weights.files.arrays import type_of
from colbuild.weights.files.tensor_writer import Planned, header

_WEIGHT: Final = "weight"
_COUNT: Final = "step"
_AVERAGES: Final = ("exp_avg", "exp_avg_sq")
"""What torch's AdamW calls what it keeps of a weight, beside the count of its updates."""

_RANDOM: Final = "random"
_WRITTEN: Final = "written"
"""In front of the names of what the student has written."""


def tensors_of(
    weights: Mapping[str, torch.Tensor], optimizer: torch.optim.Optimizer, written: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Every tensor of a state: "weight/NAME", "exp_avg/NAME" and the like of the optimiser, "random", "written/NAME"."""
    found: dict[str, torch.Tensor] = {}
    for name, weight in weights.items():
        kept = optimizer.state[weight]
        found |= {f"{kind}/{name}": tensor for kind, tensor in {_WEIGHT: weight, **kept}.items()}
    found |= {f"{_WRITTEN}/{name}": tensor for name, tensor in written.items()}
    return {**found, _RANDOM: torch.get_rng_state()}


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> str:
    """Writes a safetensors file and syncs it; returns its sha256.

    The digest is made on the way, a tensor at a time, and where the disk refuses its error says why; the library (0.8) gives
    a text instead.
    """
    digest = hashlib.sha256()
    planned = [Planned(name, type_of(tensor), tuple(tensor.shape)) for name, tensor in tensors.items()]
    with path.open("wb") as file:
        for block in chain((memoryview(header(planned, {})),), map(bytes_of, tensors.values())):
            file.write(block)
            digest.update(block)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def bytes_of(tensor: torch.Tensor) -> memoryview:
    """A tensor's bytes, as a file holds them."""
    flat: Any = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return memoryview(flat)


def fits(path: Path, weights: Mapping[str, torch.Tensor], step: int) -> bool:
    """Returns whether the tensors in a file are those of these weights after so many steps."""
    try:
        with safe_open(path, "pt") as file:
            names = [name for name in file.keys() if not name.startswith(f"{_WRITTEN}/")]  # noqa: SIM118  (no mapping)
            parts = {name: file.get_slice(name) for name in names}
            found = {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in parts.items()}
            counts = [file.get_tensor(name).item() for name in found if name.startswith(f"{_COUNT}/")]
    except (OSError, SafetensorError, ValueError, RuntimeError):
        return False
    expected = {_RANDOM: ("U8", tuple(torch.get_rng_state().shape))}
    for name, weight in weights.items():
        whole = ("F32", tuple(weight.shape))
        expected[f"{_WEIGHT}/{name}"] = whole
        # A weight that has not had a gradient yet has no averages.
        if f"{_COUNT}/{name}" in found:
            expected |= {f"{_COUNT}/{name}": ("F32", ()), **{f"{kind}/{name}": whole for kind in _AVERAGES}}
    return found == expected and max(counts, default=0) == step


def fill(path: Path, weights: Mapping[str, torch.Tensor], optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Reads the tensors of a file that fits into weights and their optimiser, one at a time, and torch's random state.

    Returns:
        What the student had written, by name.
    """
    with safe_open(path, "pt") as file, torch.no_grad():
        names = set(file.keys())
        for name, weight in weights.items():
            weight.copy_(file.get_tensor(f"{_WEIGHT}/{name}"))
            for kind in (_COUNT, *_AVERAGES):
                if f"{kind}/{name}" in names:
                    read = file.get_tensor(f"{kind}/{name}")
                    # A copy: what is read may lie in the file itself.
                    kept = torch.empty(read.shape, device=weight.device) if kind == _COUNT else torch.empty_like(weight)
                    optimizer.state[weight][kind] = kept.copy_(read)
        torch.set_rng_state(file.get_tensor(_RANDOM).clone())
        prefix = f"{_WRITTEN}/"
        return {name.removeprefix(prefix): file.get_tensor(name).clone() for name in names if name.startswith(prefix)}
