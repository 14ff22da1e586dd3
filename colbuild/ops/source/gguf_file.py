"""The header of a GGUF file: its metadata and where its tensors lie.

The `gguf` package reads every token of a vocabulary into an array of its own, which takes seconds; a plan needs ten
numbers.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colbuild.errors import BuildError

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_DEFAULT_ALIGNMENT = 32


@dataclass(frozen=True)
class ArrayValue:
    """An array in the metadata, of which only the length is kept."""

    length: int


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of the file.

    Attributes:
        name: As llama.cpp calls it.
        shape: Slowest dimension first, as torch counts.
        kind: The number of its GGML type.
        offset: From the start of the file, in bytes.
    """

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int


@dataclass(frozen=True)
class GGUFHeader:
    """What a GGUF file says about itself; `size` is the file's, in bytes."""

    metadata: Mapping[str, Any]
    tensors: Mapping[str, TensorEntry]
    size: int


def is_gguf(path: Path) -> bool:
    """Whether a file begins as a GGUF file does, whatever it is called. Raises OSError where it cannot be read."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def read_header(path: Path) -> GGUFHeader:
    """Reads a GGUF file's header.

    Raises:
        BuildError: The file is cut off or damaged, or of a version that is not supported.
        OSError: It cannot be read.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        try:
            return _read(view)
        except (struct.error, KeyError, IndexError, ValueError, TypeError) as error:
            raise BuildError(
                f"{path.name} is not a whole GGUF file: its header is cut off or damaged",
                hint="Fetch it again, or compare its size with the original's.",
            ) from error


class _Cursor:
    """Reads values one after the other. What a value is, its kind says: hence `Any`."""

    def __init__(self, view: mmap.mmap, at: int) -> None:
        self.view, self.at = view, at

    def number(self, code: str) -> Any:
        (value,) = struct.unpack_from(f"<{code}", self.view, self.at)
        self.at += struct.calcsize(f"<{code}")
        return value

    def text(self) -> str:
        length = self.number("Q")
        self.skip(length)
        return self.view[self.at - length : self.at].decode("utf-8")

    def skip(self, count: int) -> None:
        if count > len(self.view) - self.at:
            raise IndexError(count)
        self.at += count

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            return self.number(_SCALARS[kind])
        of, length = self.number("I"), self.number("Q")
        if of == _STRING:
            for _ in range(length):
                self.skip(self.number("Q"))
        elif of == _ARRAY:
            for _ in range(length):
                self.value(_ARRAY)
        else:
            self.skip(length * struct.calcsize(f"<{_SCALARS[of]}"))
        return ArrayValue(length)


def _read(view: mmap.mmap) -> GGUFHeader:
    cursor = _Cursor(view, len(MAGIC))
    version = cursor.number("I")
    if version not in _VERSIONS:
        raise BuildError(f"GGUF version {version} is not supported; supported: {', '.join(map(str, _VERSIONS))}")
    tensor_count, value_count = cursor.number("Q"), cursor.number("Q")
    metadata: dict[str, Any] = {}
    for _ in range(value_count):
        key = cursor.text()
        metadata[key] = cursor.value(cursor.number("I"))
    drafts = []
    for _ in range(tensor_count):
        name = cursor.text()
        shape = tuple(reversed([cursor.number("Q") for _ in range(cursor.number("I"))]))
        drafts.append((name, shape, cursor.number("I"), cursor.number("Q")))
    alignment = int(metadata.get("general.alignment", _DEFAULT_ALIGNMENT))
    start = -(-cursor.at // max(alignment, 1)) * max(alignment, 1)
    entries = {name: TensorEntry(name, shape, kind, start + offset) for name, shape, kind, offset in drafts}
    return GGUFHeader(metadata, entries, len(view))
