"""A raw file of a corpus: decompressed bytes, lines and pieces of text.

Compression is told by a file's first bytes, never by its name.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, Final

from colbuild.arch.files.json_file import LFS_POINTER
from colbuild.bounds import TEXT_RATIO, TEXT_SPARE
from colbuild.errors import BuildError, SourceError
from colbuild.spec.sources.formats import FORMATS

CHUNK: Final = 1 << 18
_MAGIC_BYTES: Final = 6
_NOT_READ: Final = ((b"PK\x03\x04", "zip"), (b"7z\xbc\xaf", "7z"))
_UTF16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_DAMAGE: Final = (zlib.error, lzma.LZMAError, OSError)
_RETURN: Final = "\r"

_TAR: Final = slice(257, 262)
"""Where a tar archive says that it is one."""


_CUT_OFF: Final = "Truncated compressed stream"
"""What Arrow's codecs say of data that ends too early (seen in pyarrow 26)."""


class CutOffError(Exception):
    """A compressed file ends before its end marker; everything before was delivered."""


def starts_with(path: Path, size: int) -> bytes:
    """The first bytes of a file as they lie on the disk."""
    with path.open("rb") as file:
        return file.read(size)


def is_compressed(path: Path) -> bool:
    """Returns whether `chunks` will decompress the file."""
    return _opener(starts_with(path, _MAGIC_BYTES)) is not None


def unpacked(path: Path, scratch: Path) -> Path:
    """A compressed file, decompressed: what is read from its end, or at places of its own, has to be unpacked first.

    Raises:
        BuildError: It is damaged or cut off.
    """
    target = scratch / "unpacked"
    with target.open("wb") as file:
        for data in _whole(path):
            file.write(data)
    return target


def wrong_file(plain: Path, path: Path) -> SourceError | None:
    """Returns an error for a file that is known to hold no text, such as an archive; None for others.

    Args:
        plain: The file, decompressed.
        path: What messages call it.
    """
    if starts_with(plain, len(LFS_POINTER)) == LFS_POINTER:
        return SourceError(f"{path} is a Git LFS pointer, not the data", hint="fetch the data: git lfs pull")
    return None


def chunks(path: Path) -> Iterator[bytes]:
    """A file's content, decompressed, piece by piece.

    Raises:
        CutOffError: A compressed file ends too early. It comes after the last piece.
        BuildError: The file is damaged, or compressed in a way that is not supported.
    """
    magic = starts_with(path, _MAGIC_BYTES)
    for sign, name in _NOT_READ:
        if magic.startswith(sign):
            raise BuildError(f"{path} is {name}-compressed, which is not supported", hint="decompress it, or use gzip")
    opener = _opener(magic)
    if opener is None:
        with path.open("rb") as file:
            while data := file.read(CHUNK):
                yield data
        return
    most, total = TEXT_SPARE + TEXT_RATIO * path.stat().st_size, 0
    with opener(path) as file:
        while data := _next(path, file):
            total += len(data)
            if total > most:
                raise BuildError(
                    f"{path} unpacks to more than {TEXT_RATIO:,} times its size, the limit",
                    hint="check the file, or unpack it yourself",
                )
            yield data


def _next(path: Path, file: Any) -> bytes:
    try:
        # read1, not read: read would lose what it has gathered when the file turns out to be cut off.
        data: bytes = file.read1(CHUNK)
    except EOFError as error:
        raise CutOffError(f"{path} is truncated: its compressed data ends before its end marker") from error
    except _DAMAGE as error:
        if str(error) == _CUT_OFF:
            raise CutOffError(f"{path} is truncated: its compressed data ends before its end marker") from error
        raise BuildError(f"{path} is damaged: {error}", hint="get it again, and give its sha256 in the spec") from error
    return data


def texts(path: Path) -> Iterator[str]:
    """A file's content as UTF-8 text, piece by piece, without a byte order mark.

    Raises:
        BuildError: It is damaged, cut off, or not UTF-8.
    """
    pending, offset = b"", 0
    for data in _whole(path):
        if offset == 0 and not pending:
            _check_start(path, data)
            skipped = len(codecs.BOM_UTF8) if data.startswith(codecs.BOM_UTF8) else 0
            offset, data = skipped, data[skipped:]
        joined = pending + data
        text, used = _decode(path, joined, offset, final=False)
        pending, offset = joined[used:], offset + used
        if text:
            yield text
    _decode(path, pending, offset, final=True)


def lines(path: Path, longest: int | None = None, most: int | None = None) -> Iterator[str]:
    """A file's lines with their line ends, CR LF made LF; the last one may lack it.

    Args:
        path: The file.
        longest: Lines of more characters come in pieces of at most so many, cut at a space where there is one.
        most: Lines of more characters are an error.

    Raises:
        BuildError: As for `texts`; or a line is too long.
    """
    held: list[str] = []
    size = 0
    for text in texts(path):
        first, *rest = text.split("\n")
        held.append(first)
        size += len(first)
        if rest:
            *whole, last = "".join(held), *rest
            _check_length(path, size, most)
            for line in whole:
                yield from pieces(f"{line.removesuffix(_RETURN)}\n", longest)
            held, size = [last], len(last)
        if longest is not None and size > longest:
            *ready, last = pieces("".join(held), longest)
            yield from ready
            held, size = [last], len(last)
        _check_length(path, size, most)
    if size:
        yield from pieces("".join(held), longest)


def _check_length(path: Path, size: int, most: int | None) -> None:
    if most is not None and size > most:
        message = f"{path} has a line of more than {most:,} characters, the limit"
        raise SourceError(message, hint="check 'format' of the data, and the file", key="format")


def pieces(text: str, longest: int | None) -> Iterator[str]:
    """The text in pieces of at most `longest` characters, cut after a line end or before a space where there is one."""
    start = 0
    while longest is not None and len(text) - start > longest:
        end = start + longest
        earliest = start + max(1, longest // 2)  # Not in a piece's first half: pieces stay few.
        cut = text.rfind("\n", earliest, end) + 1 or text.rfind(" ", earliest, end)
        end = cut if cut > 0 else end
        yield text[start:end]
        start = end
    yield text[start:]


def _whole(path: Path) -> Iterator[bytes]:
    try:
        yield from chunks(path)
    except CutOffError as error:
        raise BuildError(str(error), hint="get it again; only a MediaWiki dump may be truncated") from error


def _decode(path: Path, data: bytes, offset: int, *, final: bool) -> tuple[str, int]:
    try:
        return codecs.utf_8_decode(data, "strict", final)
    except UnicodeDecodeError as error:
        place = f"{path} is not UTF-8 text: byte 0x{data[error.start]:02x} at offset {offset + error.start}"
        inside = f"{place} of the decompressed content" if is_compressed(path) else place
        raise BuildError(inside, hint="convert it to UTF-8 (iconv), or check 'format'") from error


def _check_start(path: Path, data: bytes) -> None:
    if data.startswith(_UTF16):
        raise SourceError(f"{path} is UTF-16 text, not UTF-8", hint="convert it: iconv -f UTF-16 -t UTF-8")
    if data.count(0) * 4 > len(data):
        hint = "convert it: iconv -f UTF-16LE -t UTF-8, or choose other files: 'files'"
        raise SourceError(f"{path} is binary, or UTF-16 text, not UTF-8", hint=hint)
    if data.startswith(LFS_POINTER):
        raise SourceError(f"{path} is a Git LFS pointer, not the data", hint="fetch the data: git lfs pull")
    if data[_TAR] == b"ustar":
        raise SourceError(f"{path} is a tar archive, which is not supported", hint="unpack it, and name its folder")
    for row in FORMATS.values():
        if row.magic and data.startswith(row.magic[0]):
            raise SourceError(f"{path} is {row.called}, not text", hint=f"write 'format: {row.name}'", key="format")


def _opener(magic: bytes) -> Callable[[Path], AbstractContextManager[Any]] | None:
    return next((opener for sign, opener in _OPENERS.items() if magic.startswith(sign)), None)


def _by_arrow(codec: str, path: Path) -> AbstractContextManager[Any]:
    """A file that Python itself cannot decompress: by a codec that Arrow comes with."""
    import pyarrow as pa

    opened: AbstractContextManager[Any] = pa.CompressedInputStream(pa.OSFile(str(path)), codec)
    return opened


_OPENERS: Final[Mapping[bytes, Callable[[Path], AbstractContextManager[Any]]]] = {
    b"\x1f\x8b": gzip.GzipFile,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
    b"\x28\xb5\x2f\xfd": partial(_by_arrow, "zstd"),
    b"\x04\x22\x4d\x18": partial(_by_arrow, "lz4"),
}
