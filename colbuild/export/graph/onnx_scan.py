"""Reads an ONNX file without onnx and without its weights, and lists the files of its tensors.

onnxruntime opens such files at any path, and waits forever for a pipe. A package's graph may only name files beside it.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from colbuild.bounds import ONNX_DEPTH, ONNX_FIELDS
from colbuild.errors import BuildError
from colbuild.export.manifest import AGAIN
from colbuild.unpack import UnpackError, inner_parts

SUFFIX: Final = ".onnx"
"""onnxruntime reads other endings as formats of its own."""
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
"""Protobuf's wire types; groups are not used by ONNX."""
_LONGEST_VARINT: Final = 10

_INSIDE: Final[Mapping[str, Mapping[int, str]]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
    "entry": {},
}
"""Message -> number of a field -> the message that it holds: all ways to a tensor."""


class _ScanError(ValueError):
    """The bytes are no protobuf message, or one of more fields than a graph has."""


def check_data_files(path: Path) -> None:
    """Checks that the tensors of an ONNX file lie in itself or in regular files beside it.

    Raises:
        BuildError: The file is no ONNX file, cannot be read, or names other files.
    """
    if path.suffix != SUFFIX:
        raise BuildError(f"{path} is not a graph: its name does not end with {SUFFIX}", hint=AGAIN)
    try:
        names = data_files(path)
    except (OSError, ValueError) as error:
        raise BuildError(f"{path} is not an ONNX file: {error}", hint=AGAIN) from None
    for name in sorted(names):
        try:
            inner_parts(name)
        except UnpackError:
            raise BuildError(f"{path} reads '{name[:200]}', a file outside the package") from None
        if not (path.parent / name).is_file():
            raise BuildError(f"{path} reads '{name}', which does not exist beside it", hint=AGAIN)


def data_files(path: Path) -> frozenset[str]:
    """The files that tensors of an ONNX file lie in besides itself, as it names them.

    Raises:
        ValueError: It is no ONNX file.
        OSError: It cannot be read.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
        return frozenset(_locations(whole))


def _locations(whole: mmap.mmap) -> Iterator[str]:
    """Follows every message that leads to a tensor; each other field is skipped, weights too."""
    waiting = [("model", 0, len(whole), 0)]
    seen = 0
    while waiting:
        kind, start, end, depth = waiting.pop()
        if depth > ONNX_DEPTH:
            raise _ScanError(f"it is nested deeper than {ONNX_DEPTH} levels, the limit")
        texts: dict[int, bytes] = {}
        inside = _INSIDE[kind]
        while start < end:
            seen += 1
            if seen > ONNX_FIELDS:
                raise _ScanError(f"it has more than {ONNX_FIELDS:,} fields, the limit")
            number, first, start = _field(whole, start, end)
            if number in inside:
                waiting.append((inside[number], first, start, depth + 1))
            elif kind == "entry" and number in (1, 2):
                texts[number] = whole[first : min(start, first + 4096)]
        if kind == "entry" and texts.get(1) == b"location":
            yield texts.get(2, b"").decode("utf-8", errors="replace")


def _field(whole: mmap.mmap, start: int, end: int) -> tuple[int, int, int]:
    """A field's number where it holds bytes, else 0; where its content begins, and where it ends."""
    tag, start = _varint(whole, start, end)
    number, wire = tag >> 3, tag & 7
    if wire == _VARINT:
        return 0, start, _varint(whole, start, end)[1]
    if wire == _BYTES:
        length, start = _varint(whole, start, end)
    elif wire in (_EIGHT, _FOUR):
        number, length = 0, 8 if wire == _EIGHT else 4
    else:
        raise _ScanError("it is not an ONNX message")
    if start + length > end:
        raise _ScanError("it ends too early")
    return number, start, start + length


def _varint(whole: mmap.mmap, start: int, end: int) -> tuple[int, int]:
    """An integer of protobuf, and where it ends."""
    value = 0
    for place in range(start, min(end, start + _LONGEST_VARINT)):
        byte = whole[place]
        value |= (byte & 0x7F) << 7 * (place - start)
        if byte < 0x80:
            return value, place + 1
    raise _ScanError("it ends too early")
