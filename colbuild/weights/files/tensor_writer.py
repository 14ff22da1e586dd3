"""Writes safetensors files in parts: headers first, then tensors in any order."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np

from colbuild.weights.files.tensor_files import DTYPES, INDEX, WEIGHTS

SHARD: Final = 5 * 10**9
"""Bytes of weights in one file, at most, as transformers cuts them."""

_ALIGNED: Final = 8
_WHOLE: Final = {np.dtype(np.uint8): "U8", np.dtype(np.int64): "I64"}
_NAMES: Final = {dtype: name for name, dtype in DTYPES.items()} | _WHOLE
_METADATA: Final = {"format": "pt"}
"""The one metadata key that transformers asks for."""


@dataclass(frozen=True)
class Planned:
    """A tensor that is to be written: its name in the file, type and shape."""

    name: str
    dtype: np.dtype[Any]
    lengths: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """The number of bytes."""
        return prod(self.lengths) * self.dtype.itemsize


class TensorWriter:
    """The weight files of one model folder, open for writing; a context manager that leaves none after an error.

    What is in them does not depend on the order in which pieces are written, and several threads may write at once.
    """

    def __init__(self, folder: Path, tensors: Sequence[Planned], shard: int = SHARD) -> None:
        self._folder = folder
        self._shards = _cut(tensors, shard)
        self._places: dict[str, tuple[int, int]] = {}
        self._open = ExitStack()
        self._begun: list[Path] = []

    def __enter__(self) -> Self:
        count = len(self._shards)
        names = [WEIGHTS if count == 1 else f"model-{one + 1:05}-of-{count:05}.safetensors" for one in range(count)]
        for name, tensors in zip(names, self._shards, strict=True):
            path = self._folder / name
            self._begun.append(path)
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
            self._open.callback(os.close, file)
            head = header(tensors, _METADATA)
            os.pwrite(file, head, 0)
            offset = len(head)
            for tensor in tensors:
                self._places[tensor.name] = (file, offset)
                offset += tensor.bytes
            os.truncate(file, offset)
        if count > 1:
            self._begun.append(self._folder / INDEX)
            _write_index(self._folder / INDEX, dict(zip(names, self._shards, strict=True)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()
        if error is not None:
            for path in self._begun:
                path.unlink(missing_ok=True)

    def write(self, name: str, offset: int, data: memoryview) -> None:
        """Writes a piece of a tensor, `offset` bytes after its beginning."""
        file, start = self._places[name]
        place = start + offset
        while data:
            done = os.pwrite(file, data, place)
            data, place = data[done:], place + done


def _cut(tensors: Sequence[Planned], shard: int) -> list[list[Planned]]:
    """Tensors in their order, as many in a file as fit; those of wider types first, so that each begins where it may."""
    shards: list[list[Planned]] = [[]]
    filled = 0
    for tensor in tensors:
        if shards[-1] and filled + tensor.bytes > shard:
            shards.append([])
            filled = 0
        shards[-1].append(tensor)
        filled += tensor.bytes
    # As the safetensors library lays them out: by the width of the type, then by name.
    return [sorted(each, key=lambda one: (-one.dtype.itemsize, one.name)) for each in shards]


def header(tensors: Sequence[Planned], metadata: Mapping[str, str]) -> bytes:
    """Returns the header of a safetensors file: its length, and the place of each tensor."""
    entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for tensor in tensors:
        entries[tensor.name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.lengths),
            "data_offsets": [offset, offset + tensor.bytes],
        }
        offset += tensor.bytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNED)
    return len(text).to_bytes(8, "little") + text


def _write_index(path: Path, shards: Mapping[str, Sequence[Planned]]) -> None:
    where = {tensor.name: name for name, tensors in shards.items() for tensor in tensors}
    total = sum(tensor.bytes for tensors in shards.values() for tensor in tensors)
    text = json.dumps({"metadata": {"total_size": total}, "weight_map": where}, indent=2, sort_keys=True)
    path.write_text(text + "\n", encoding="utf-8")
