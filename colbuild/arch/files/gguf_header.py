"""The header of a GGUF file, whole or split: its metadata and the places of its tensors.

The `gguf` package reads every token of a vocabulary into an array of its own, which takes seconds; a plan needs ten
numbers.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from colbuild.arch.files.gguf_split import split_names
from colbuild.bounds import DIMENSIONS, HEADER_FACTS, HEADER_NESTING, HEADER_TENSORS, ROWS, WEIGHTS_HEADER
from colbuild.documents import MalformedError, open_regular
from colbuild.errors import BuildError
from colbuild.units import format_bytes

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_DEFAULT_ALIGNMENT = 32
_LONGEST_KEPT = 1024
"""Numbers in an array that is kept: one for each layer are, one for each token of a vocabulary are not."""

_MOST_FLOATS = 1 << 20
_DAMAGED = "fetch it again, or compare its size with the original's"

_F32 = 0
_WIDTHS = {_F32: 4, 1: 2, 30: 2}
"""Bytes of a number, of the GGML types that are not quantised; no quantised type has less than a bit for each."""


@dataclass(frozen=True)
class ArrayValue:
    """An array in the metadata, of which only its size is kept.

    Attributes:
        length: How many values it has.
        bytes: Of these; a text takes eight more than its own.
    """

    length: int
    bytes: int = 0


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of the file.

    Attributes:
        name: As llama.cpp calls it.
        shape: Slowest dimension first, as torch counts.
        kind: The number of its GGML type.
        offset: From the start of its file, in bytes.
        path: The file it lies in.
    """

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int
    path: Path


@dataclass(frozen=True)
class GGUFHeader:
    """The header of a GGUF model.

    Attributes:
        parts: Its files; several where it is split.
        metadata: Keys and values. An array of few numbers is a tuple, any other an `ArrayValue`.
        tensors: Name -> where it lies.
    """

    parts: tuple[Path, ...]
    metadata: Mapping[str, Any]
    tensors: Mapping[str, TensorEntry]

    @property
    def name(self) -> str:
        """Its name in messages."""
        return self.parts[0].name


def gguf_parts(raw: Path) -> tuple[Path, ...]:
    """The files of a GGUF model: one, or those that it is split into; none if it is no such model.

    Args:
        raw: A file, whatever it is called; one file of a split model; or a folder that holds the files of one and no other.

    Raises:
        BuildError: A file of a split model is missing.
        OSError: It cannot be read.
    """
    if not raw.is_dir():
        if not _is_gguf(raw):
            return ()
        return _present([raw.with_name(name) for name in split_names(raw.name)]) or (raw,)
    sets = {names for path in raw.glob("*.gguf") for names in [split_names(path.name)]}
    names = sets.pop() if len(sets) == 1 else ()
    return _present([raw / name for name in names])


def _present(parts: Sequence[Path]) -> tuple[Path, ...]:
    missing = [path.name for path in parts if not path.is_file()]
    if missing:
        raise BuildError(
            f"the model is split into {len(parts)} files, and {', '.join(missing[:3])} is missing in {parts[0].parent}",
            hint="get all of them, or join them with 'gguf-split --merge' of llama.cpp",
        )
    return tuple(parts)


def _is_gguf(path: Path) -> bool:
    try:
        with open_regular(path) as file:
            return file.read(len(MAGIC)) == MAGIC
    except MalformedError:
        return False


def read_header(parts: Sequence[Path]) -> GGUFHeader:
    """Reads the header of a GGUF model, as `gguf_parts` lists its files.

    Raises:
        BuildError: A file is cut off or damaged, of a version that is not supported, or does not belong to the others.
        OSError: It cannot be read.
    """
    headers = [_read_file(path) for path in parts]
    first, _ = headers[0]
    tensors = {name: entry for _, entries in headers for name, entry in entries.items()}
    header = GGUFHeader(tuple(parts), first, tensors)
    for number, (metadata, _) in enumerate(headers):
        count = metadata.get("split.count", 1)
        several = isinstance(count, int) and count > 1
        if (count if several else 1) != len(parts) or (several and metadata.get("split.no", number) != number):
            raise BuildError(
                f"{parts[number].name} says that the model has {count} files, which contradicts the file names",
                hint="restore the original names of the files, such as model-00001-of-00003.gguf",
            )
    if first.get("split.tensors.count", len(tensors)) != len(tensors):
        raise BuildError(
            f"{header.name} should have {first['split.tensors.count']} tensors in all; there are {len(tensors)}"
        )
    _check_ends(header)
    return header


def _check_ends(header: GGUFHeader) -> None:
    """Raises BuildError if a file ends before one of its tensors does; of quantised types only the fewest bytes are known."""
    sizes = {path: path.stat().st_size for path in header.parts}
    for entry in header.tensors.values():
        count = prod(entry.shape)
        if (
            entry.offset + _WIDTHS.get(entry.kind, 0) * count + (entry.kind not in _WIDTHS) * count // 8
            > sizes[entry.path]
        ):
            raise BuildError(
                f"{entry.path.name} is truncated: it ends within or before {entry.name}",
                hint="fetch it again, or compare its size with the original's",
            )


def read_floats(entry: TensorEntry) -> tuple[float, ...]:
    """The numbers of a small tensor in float32, without any library.

    Raises:
        BuildError: It is of another type, or cut off.
        OSError: It cannot be read.
    """
    if entry.kind != _F32:
        raise BuildError(f"{entry.path.name}: {entry.name} is not in float32")
    size = prod(entry.shape)
    if not 0 < size <= _MOST_FLOATS:
        raise BuildError(f"{entry.path.name}: {entry.name} has {size:,} numbers; the limit is {_MOST_FLOATS:,}")
    with entry.path.open("rb") as file:
        file.seek(entry.offset)
        content = file.read(4 * size)
    if len(content) != 4 * size:
        raise BuildError(f"{entry.path.name} is truncated: it ends within or before {entry.name}")
    return struct.unpack(f"<{size}f", content)


def _read_file(path: Path) -> tuple[dict[str, Any], dict[str, TensorEntry]]:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        try:
            return _read(view, path)
        except _BoundError as error:
            raise BuildError(f"{path.name} is damaged: its header has more than {error}", hint=_DAMAGED) from None
        except (struct.error, KeyError, IndexError, ValueError, TypeError, OverflowError) as error:
            raise BuildError(
                f"{path.name} is not a whole GGUF file: its header is truncated or damaged", hint=_DAMAGED
            ) from error


class _BoundError(Exception):
    """A header goes beyond a bound; the message tells which."""


def _bounded(count: int, most: int, noun: str) -> int:
    if count > most:
        raise _BoundError(f"{most:,} {noun}, the limit")
    return count


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
        if self.at > WEIGHTS_HEADER:
            raise _BoundError(f"{format_bytes(WEIGHTS_HEADER)}, the limit")

    def value(self, kind: int, depth: int = 0) -> Any:
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            return self.number(_SCALARS[kind])
        of, length = self.number("I"), _bounded(self.number("Q"), ROWS, "values in an array")
        _bounded(depth + 1, HEADER_NESTING, "arrays in arrays")
        start = self.at
        if of == _STRING:
            for _ in range(length):
                self.skip(self.number("Q"))
        elif of == _ARRAY:
            for _ in range(length):
                self.value(_ARRAY, depth + 1)
        elif length <= _LONGEST_KEPT:
            return tuple(self.number(_SCALARS[of]) for _ in range(length))
        else:
            self.skip(length * struct.calcsize(f"<{_SCALARS[of]}"))
        return ArrayValue(length, self.at - start)


def _read(view: mmap.mmap, path: Path) -> tuple[dict[str, Any], dict[str, TensorEntry]]:
    cursor = _Cursor(view, len(MAGIC))
    version = cursor.number("I")
    if version not in _VERSIONS:
        if int.from_bytes(version.to_bytes(4, "little"), "big") in _VERSIONS:
            raise BuildError(
                f"{path.name} is a big-endian GGUF file, which is not supported",
                hint="use the little-endian file, or the model's safetensors folder",
            )
        raise BuildError(
            f"{path.name}: GGUF version {version} is not supported; supported: {', '.join(map(str, _VERSIONS))}",
            hint="convert the model again with a newer llama.cpp, or use its safetensors folder",
        )
    tensor_count = _bounded(cursor.number("Q"), HEADER_TENSORS, "tensors")
    value_count = _bounded(cursor.number("Q"), HEADER_FACTS, "facts")
    metadata: dict[str, Any] = {}
    for _ in range(value_count):
        key = cursor.text()
        metadata[key] = cursor.value(cursor.number("I"))
    drafts = []
    for _ in range(tensor_count):
        name = cursor.text()
        axes = _bounded(cursor.number("I"), DIMENSIONS, "dimensions of a tensor")
        shape = tuple(reversed([cursor.number("Q") for _ in range(axes)]))
        drafts.append((name, shape, cursor.number("I"), cursor.number("Q")))
    alignment = int(metadata.get("general.alignment", _DEFAULT_ALIGNMENT))
    start = -(-cursor.at // max(alignment, 1)) * max(alignment, 1)
    return metadata, {
        name: TensorEntry(name, shape, kind, start + offset, path) for name, shape, kind, offset in drafts
    }
