"""Reads tensors of safetensors files in parts, without mapping or loading a file."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np

from colbuild.arch.files.safetensors_headers import AGAIN, INDEX, WEIGHTS, Entry, check_kind_of, entries, weight_files
from colbuild.errors import BuildError
from colbuild.weights.files.arrays import BFLOAT16, Array

__all__ = ["DTYPES", "INDEX", "WEIGHTS", "Stored", "TensorReader", "stored_tensors", "weight_files"]

DTYPES: Final[Mapping[str, np.dtype[Any]]] = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": BFLOAT16,
}
"""Types that weights may have, as files call them."""


@dataclass(frozen=True)
class Stored:
    """One tensor of a file.

    Attributes:
        name: What the file calls it.
        path: The file.
        offset: Where in it the tensor begins, in bytes.
        dtype: Type of its entries.
        lengths: Its shape.
    """

    name: str
    path: Path
    offset: int
    dtype: np.dtype[Any]
    lengths: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """The number of bytes."""
        return prod(self.lengths) * self.dtype.itemsize

    @property
    def width(self) -> int:
        """Entries in a row."""
        return prod(self.lengths[1:])


def stored_tensors(folder: Path) -> dict[str, Stored]:
    """Every tensor of a model folder, by its name in the files.

    Raises:
        BuildError: There are no safetensors; a file is damaged, cut off or missing; a tensor is there twice or is of a type
            that weights cannot have.
    """
    found: dict[str, Stored] = {}
    for entry in entries(folder):
        if entry.name in found:
            raise BuildError(f"{folder} stores {entry.name} twice; the intended one is ambiguous")
        found[entry.name] = _stored(entry)
    return found


def _stored(entry: Entry) -> Stored:
    check_kind_of(entry)
    return Stored(entry.name, entry.path, entry.offset, DTYPES[entry.kind], entry.lengths)


class TensorReader:
    """Reads rows of tensors into buffers that are used again; a context manager. Each thread has buffers of its own."""

    def __init__(self) -> None:
        self._own = threading.local()
        self._files: dict[Path, int] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            os.close(file)
        self._files.clear()

    def rows(self, tensor: Stored, start: int, stop: int, buffer: str) -> Array:
        """Rows of a tensor as a matrix [stop - start, columns].

        Args:
            tensor: Where it lies.
            start: The first row.
            stop: The row after the last.
            buffer: What is read holds until the same thread reads into the same buffer again.

        Raises:
            BuildError: The file ends before, or cannot be read.
        """
        row = tensor.width * tensor.dtype.itemsize
        memory = self._buffer(buffer, (stop - start) * row)
        self._fill(tensor, memory, tensor.offset + start * row)
        return np.frombuffer(memory, tensor.dtype).reshape(stop - start, tensor.width)

    def _buffer(self, name: str, size: int) -> memoryview:
        buffers: dict[str, bytearray] = self._own.__dict__.setdefault("buffers", {})
        if len(buffers.get(name, b"")) < size:
            buffers[name] = bytearray(size)
        return memoryview(buffers[name])[:size]

    def _fill(self, tensor: Stored, memory: memoryview, offset: int) -> None:
        try:
            file = self._file(tensor.path)
            while memory:
                done = os.preadv(file, [memory], offset)
                if not done:
                    raise BuildError(f"{tensor.path} ends early", hint=AGAIN)
                memory, offset = memory[done:], offset + done
        except OSError as error:
            raise BuildError(f"{tensor.path} cannot be read: {error}") from None

    def _file(self, path: Path) -> int:
        with self._lock:
            if path not in self._files:
                file = os.open(path, os.O_RDONLY)
                self._files[path] = file
                if hasattr(os, "posix_fadvise"):
                    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_SEQUENTIAL)
            return self._files[path]
