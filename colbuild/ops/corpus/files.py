"""The raw files of a corpus: which ones, and their bytes, lines and pieces of text, decompressed on the way.

Compression is told by a file's first bytes, never by its name.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from colbuild.errors import BuildError

CHUNK: Final = 1 << 18
_MAGIC_BYTES: Final = 6
_NOT_READ: Final = ((b"\x28\xb5\x2f\xfd", "zstd"), (b"PK\x03\x04", "zip"), (b"7z\xbc\xaf", "7z"))
_UTF16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_DAMAGE: Final = (zlib.error, lzma.LZMAError, OSError)
_RETURN: Final = "\r"
_PACKINGS: Final = frozenset((".gz", ".bz2", ".xz"))


class CutOffError(Exception):
    """A compressed file ends before its end marker; everything before was delivered."""


def raw_files(raw: Path, suffixes: Collection[str]) -> tuple[Path, ...]:
    """The files of a corpus, in the order of their paths.

    In a folder, hidden files are left out; if any file bears one of the `suffixes` of the format (perhaps before .gz,
    .bz2 or .xz), only such files are read, so that a README beside the data is not taken for data.

    Raises:
        BuildError: There is no file.
    """
    if raw.is_file():
        return (raw,)
    found = sorted(path for path in raw.rglob("*") if path.is_file() and not _hidden(path.relative_to(raw)))
    if not found:
        raise BuildError(f"the corpus {raw} holds no files", hint="check 'source' of the data")
    return tuple(path for path in found if _suffix(path) in suffixes) or tuple(found)


def starts_with(path: Path, size: int) -> bytes:
    """The first bytes of a file as they lie on the disk."""
    with path.open("rb") as file:
        return file.read(size)


def is_compressed(path: Path) -> bool:
    """Whether `chunks` will decompress the file."""
    return _opener(starts_with(path, _MAGIC_BYTES)) is not None


def chunks(path: Path) -> Iterator[bytes]:
    """A file's content, decompressed, piece by piece.

    Raises:
        CutOffError: A compressed file ends too early. It comes after the last piece.
        BuildError: The file is damaged, or compressed in a way that is not supported.
    """
    magic = starts_with(path, _MAGIC_BYTES)
    for sign, name in _NOT_READ:
        if magic.startswith(sign):
            raise BuildError(
                f"{path} is {name}-compressed, which a corpus cannot be", hint="decompress it, or use gzip"
            )
    opener = _opener(magic)
    if opener is None:
        with path.open("rb") as file:
            while data := file.read(CHUNK):
                yield data
        return
    with opener(path) as file:
        while data := _next(path, file):
            yield data


def _next(path: Path, file: gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile) -> bytes:
    try:
        # read1, not read: read would lose what it has gathered when the file turns out to be cut off.
        return file.read1(CHUNK)
    except EOFError as error:
        raise CutOffError(f"{path} is cut off: its compressed data ends before its end marker") from error
    except _DAMAGE as error:
        raise BuildError(f"{path} is damaged: {error}", hint="get it again, and give its sha256 in the spec") from error


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


def lines(path: Path, longest: int | None = None) -> Iterator[str]:
    """A file's lines with their line ends, CR LF made LF; the last one may lack it.

    Args:
        path: The file.
        longest: Lines of more characters come in pieces of at most so many, cut at a space where there is one.

    Raises:
        BuildError: As for `texts`.
    """
    held: list[str] = []
    size = 0
    for text in texts(path):
        first, *rest = text.split("\n")
        held.append(first)
        size += len(first)
        if rest:
            *whole, last = "".join(held), *rest
            for line in whole:
                yield from pieces(f"{line.removesuffix(_RETURN)}\n", longest)
            held, size = [last], len(last)
        if longest is not None and size > longest:
            *ready, last = pieces("".join(held), longest)
            yield from ready
            held, size = [last], len(last)
    if size:
        yield from pieces("".join(held), longest)


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
        raise BuildError(str(error), hint="get it again; only a MediaWiki dump may be cut off") from error


def _decode(path: Path, data: bytes, offset: int, *, final: bool) -> tuple[str, int]:
    try:
        return codecs.utf_8_decode(data, "strict", final)
    except UnicodeDecodeError as error:
        place = f"{path} is not UTF-8 text: byte 0x{data[error.start]:02x} at offset {offset + error.start}"
        inside = f"{place} of the decompressed content" if is_compressed(path) else place
        raise BuildError(inside, hint="convert it to UTF-8 (iconv), or check 'format'") from error


def _check_start(path: Path, data: bytes) -> None:
    if data.startswith(_UTF16):
        raise BuildError(f"{path} is UTF-16 text, not UTF-8", hint="convert it: iconv -f UTF-16 -t UTF-8")
    if data.startswith(b"PAR1"):
        raise BuildError(f"{path} is a Parquet file, not text", hint="say 'format: parquet'")


def _opener(magic: bytes) -> type[gzip.GzipFile] | type[bz2.BZ2File] | type[lzma.LZMAFile] | None:
    if magic.startswith(b"\x1f\x8b"):
        return gzip.GzipFile
    if magic.startswith(b"BZh"):
        return bz2.BZ2File
    if magic.startswith(b"\xfd7zXZ\x00"):
        return lzma.LZMAFile
    return None


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _suffix(path: Path) -> str:
    return Path(path.stem).suffix.lower() if path.suffix.lower() in _PACKINGS else path.suffix.lower()
