"""Decompresses a tar file in one pass, up to a limit, with little memory."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
from collections.abc import Callable, Mapping
from typing import IO, Final, Protocol

from colbuild.arriving import Bound, BoundError
from colbuild.bounds import HEADER_BYTES, UNPACKED_BYTES, UNPACKED_RATIO, XZ_BYTES
from colbuild.units import format_bytes

_BLOCK: Final = 1 << 16
_HEADER: Final = Bound(HEADER_BYTES, "the limit of an archive's header")


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def unpacked_bound(size: int) -> Bound:
    """Returns the limit of unpacked bytes for an archive of this size."""
    most = max(UNPACKED_BYTES, UNPACKED_RATIO * size)
    return Bound(most, f"the limit of an archive of {format_bytes(size)}")


class Reading:
    """A file of which no one header is longer than it may be: what a library reads whole is as long as the file says."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._size = file, os.fstat(file.fileno()).st_size

    def seekable(self) -> bool:
        """Returns whether `seek` leads anywhere."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """Goes to a place."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """The place."""
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        """Some bytes, or all that are left. Raises BoundError."""
        _HEADER.check(min(size, self._size) if size >= 0 else self._size - self._file.tell())
        return self._file.read(size)


class Unpacked:
    """The content of a compressed file.

    Args:
        file: It, at its beginning.
        bound: How much it may be.
    """

    def __init__(self, file: IO[bytes], bound: Bound) -> None:
        self._content = _open(file)
        self._bound, self._at = bound, 0

    def tell(self) -> int:
        """The place."""
        return self._at

    def seek(self, offset: int) -> int:
        """Reads on to a place. Raises BoundError: it lies before this one, or beyond the bound."""
        if offset < self._at:
            raise BoundError("a header of it points backwards")
        self._bound.check(offset)
        while self._at < offset and self.read(min(_BLOCK, offset - self._at)):
            pass
        return self._at

    def read(self, size: int = -1) -> bytes:
        """As many bytes, fewer at the end. Raises BoundError."""
        if size < 0:
            raise BoundError("a header of it has no end")
        _HEADER.check(size)
        parts: list[bytes] = []
        while size > 0 and (part := self._content.read(min(_BLOCK, size))):
            parts.append(part)
            size -= len(part)
            self._at += len(part)
            self._bound.check(self._at)
        return b"".join(parts)


class _Xz:
    """The content of an xz file, with a limit on the memory of unpacking."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._packed = file, b""
        self._unpacker = lzma.LZMADecompressor(memlimit=XZ_BYTES)

    def read(self, size: int, /) -> bytes:
        while True:
            if self._unpacker.eof:
                self._packed = (self._unpacker.unused_data or self._file.read(_BLOCK)).lstrip(b"\0")
                if not self._packed:
                    return b""
                self._unpacker = lzma.LZMADecompressor(memlimit=XZ_BYTES)
            elif self._unpacker.needs_input:
                self._packed = self._file.read(_BLOCK)
                if not self._packed:
                    raise EOFError("it is truncated")
            part = self._unpacker.decompress(self._packed, size)
            self._packed = b""
            if part:
                return part


_OPENERS: Final[Mapping[bytes, Callable[[IO[bytes]], _Readable]]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": _Xz,
    b"]\0\0": _Xz,
}
"""How a file begins -> how it is unpacked."""


def _open(file: IO[bytes]) -> _Readable:
    begins = file.read(8)
    file.seek(0)
    return next((open_(file) for sign, open_ in _OPENERS.items() if begins.startswith(sign)), file)
