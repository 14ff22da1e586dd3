"""The weights of a Hugging Face model folder: one safetensors file, or several with an index."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from colbuild.arch import Role, Structure, tensors
from colbuild.errors import BuildError
from colbuild.weights.tensor_files import weight_files

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def read_folder_weights(folder: Path, structure: Structure) -> Iterator[tuple[str, torch.Tensor]]:
    """Reads every tensor of a model, one after the other, as it is stored.

    A head that is tied to the embedding is stored by some and not by others, and so are masks and rotary frequencies that
    follow from the configuration: these are left out. Files of the bare model lack the prefix that every name has.

    Yields:
        Name and tensor, backed by the file.

    Raises:
        BuildError: There are no safetensors, or they are damaged, or one is no floating point tensor.
    """
    architecture = structure.architecture
    kept = {tensor.name for tensor in tensors(structure)}
    head = next(pattern.name for pattern in architecture.tensors if pattern.role is Role.HEAD)
    seen: set[str] = set()
    for path in weight_files(folder):
        try:
            with safe_open(path, framework="pt") as file:
                # The handle is no mapping: it has keys(), but cannot be iterated.
                for stored in file.keys():  # noqa: SIM118
                    name = architecture.model_name(stored)
                    if stored.endswith(architecture.buffers) or (name == head and head not in kept):
                        continue
                    if name not in kept:
                        name = _prefixed(name, architecture.prefix, kept)
                    if name in seen:
                        raise BuildError(f"{folder} stores {name} twice; it cannot be told which one is meant")
                    seen.add(name)
                    yield name, _checked(name, file.get_tensor(stored), path)
        except (OSError, SafetensorError) as error:
            raise BuildError(
                f"{path.name} in {folder} cannot be read: {error}", hint="It may be cut off: fetch it again."
            ) from error


def _prefixed(stored: str, prefix: str, kept: Collection[str]) -> str:
    """A stored name with the architecture's prefix where that makes it one of the table's."""
    return prefix + stored if prefix + stored in kept else stored


def _checked(name: str, tensor: torch.Tensor, path: Path) -> torch.Tensor:
    if tensor.dtype not in _DTYPES:
        raise BuildError(
            f"{name} in {path} is of type {tensor.dtype}; float32, float16 and bfloat16 can be used",
            hint="Use the model's original weights rather than quantised ones.",
        )
    return tensor
