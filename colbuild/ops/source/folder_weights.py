"""The weights of a Hugging Face model folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from safetensors import SafetensorError, safe_open

from colbuild.arch.files.safetensors_headers import Entry
from colbuild.errors import BuildError


def read_folder_weights(stored: Mapping[str, Entry]) -> Iterator[tuple[str, torch.Tensor]]:
    """Reads every tensor of a model, one after the other, as it is stored.

    Args:
        stored: Name in the model -> where its files hold that tensor.

    Yields:
        Name and tensor, backed by the file.

    Raises:
        BuildError: A file is damaged.
    """
    files = {entry.path: [name for name, one in stored.items() if one.path == entry.path] for entry in stored.values()}
    for path, names in files.items():
        try:
            with safe_open(path, framework="pt") as file:
                for name in names:
                    yield name, file.get_tensor(stored[name].name)
        except (OSError, SafetensorError) as error:
            raise BuildError(
                f"{path.name} in {path.parent} cannot be read: {error}",
                hint="fetch the file again, in case it is truncated",
            ) from error
