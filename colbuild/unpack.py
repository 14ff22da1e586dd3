"""Extracts files from an archive: the only module that writes paths from an archive.

What `tarfile.extractall` keeps out differs between releases of Python, and chains of links have escaped its filters. Here no
link is followed: each file is made new below the handle of its folder, and that folder is opened part by part of its path.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from colbuild.units import format_bytes

LONGEST_NAME: Final = 255
"""Bytes of a file's name; file systems take no more."""
LONGEST_PATH: Final = 1024
_BLOCK: Final = 1 << 20
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class UnpackError(ValueError):
    """A member of an archive that is not unpacked: its name leads outside, there are two of it, or it is too large."""


def inner_parts(name: str) -> tuple[str, ...]:
    """The parts of a path that stays below the folder that it begins in.

    Raises:
        UnpackError: It is absolute, has an empty part, ".", "..", a backslash or a NUL, or is longer than a path may be.
    """
    parts = tuple(name.split("/"))
    encoded = [part.encode("utf-8", errors="surrogateescape") for part in parts] if _encodes(name) else [b""]
    if any(part in (b"", b".", b"..") or b"\0" in part or b"\\" in part for part in encoded):
        raise UnpackError(f"'{name[:200]}' is not a path inside the archive")
    if max(map(len, encoded)) > LONGEST_NAME or sum(map(len, encoded)) > LONGEST_PATH:
        raise UnpackError(f"'{name[:200]}…' is too long for a path")
    return parts


def _encodes(name: str) -> bool:
    try:
        name.encode("utf-8", errors="surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


class Bounded:
    """A stream of bytes that ends with an error beyond a bound, so that a small file does not become a large one.

    Args:
        stream: What is read.
        most: Bytes that it may have.
        told: What the bound is, for the message: "a packed file of 400 kB unpacks to".
    """

    def __init__(self, stream: IO[bytes], most: int, told: str) -> None:
        self._stream, self._most, self._told = stream, most, told
        self.taken = 0

    def read(self, size: int) -> bytes:
        """Reads at most `size` bytes. Raises UnpackError beyond the bound."""
        block = self._stream.read(min(size, _BLOCK))
        self.taken += len(block)
        if self.taken > self._most:
            raise UnpackError(f"{self._told} more than {format_bytes(self._most)}, the limit")
        return block

    def exactly(self, size: int) -> bytes:
        """Reads `size` bytes, or fewer where the stream ends."""
        blocks = []
        while size and (block := self.read(size)):
            blocks.append(block)
            size -= len(block)
        return b"".join(blocks)


class Target:
    """A folder that files are written into, and nothing outside it; as a context, it holds the folder open.

    Args:
        folder: It exists; what is in it is not overwritten.
        files: How many may be written.
        size: How many bytes all of them may have.
    """

    def __init__(self, folder: Path, *, files: int, size: int) -> None:
        self._folder, self._files, self._size = folder, files, size
        self._most_files, self._most_size = files, size
        self._handle = -1

    def __enter__(self) -> Self:
        self._handle = os.open(self._folder, _FOLDER)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._handle)

    def write(self, name: str, content: IO[bytes] | Bounded, size: int | None = None) -> int:
        """Writes one new file, its folders before it; returns how many bytes it has.

        Args:
            name: Its path inside, with forward slashes.
            content: Read to its end, or to `size`.
            size: Bytes that the file has; None: until the content ends.

        Raises:
            UnpackError: The name leads outside or is taken, the content ends too early, or files or bytes are too many.
            OSError: The disk refuses.
        """
        parts = inner_parts(name)
        self._files -= 1
        if self._files < 0:
            raise UnpackError(f"it holds more than {self._most_files:,} files, the limit")
        descriptor = self._new_file(name, parts)
        with os.fdopen(descriptor, "wb") as file:
            written = 0
            while size is None or written < size:
                block = content.read(_BLOCK if size is None else min(_BLOCK, size - written))
                if not block:
                    break
                self._size -= len(block)
                if self._size < 0:
                    raise UnpackError(f"it unpacks to more than {format_bytes(self._most_size)}, the limit")
                file.write(block)
                written += len(block)
        if size is not None and written < size:
            raise UnpackError(f"it ends within '{name}'")
        return written

    def folder(self, name: str) -> None:
        """Makes a folder, those above it too. Raises UnpackError where the name leads outside or is a file's."""
        os.close(self._opened(name, inner_parts(name)))

    def _new_file(self, name: str, parts: tuple[str, ...]) -> int:
        holder = self._opened(name, parts[:-1])
        try:
            return os.open(parts[-1], _NEW_FILE, 0o644, dir_fd=holder)
        except FileExistsError:
            raise UnpackError(f"'{name}' is in the archive twice") from None
        finally:
            os.close(holder)

    def _opened(self, name: str, parts: tuple[str, ...]) -> int:
        """The handle of a folder inside, made where it is not there; a link is never followed."""
        holder = os.dup(self._handle)
        for part in parts:
            try:
                with suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=holder)
                inner = os.open(part, _FOLDER, dir_fd=holder)
            except NotADirectoryError:
                raise UnpackError(f"'{name}' is inside a file of the same archive") from None
            finally:
                os.close(holder)
            holder = inner
        return holder
