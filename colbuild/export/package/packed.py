"""A package as one file: a sorted tar without times, owners and modes, compressed by zstandard.

The same package gives the same bytes: what could differ is left out, and one thread compresses.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, Final

from colbuild.bounds import MANIFEST_BYTES, PACKED_FILES, PACKED_RATIO, PACKED_SPARE, PACKED_WINDOW
from colbuild.errors import BuildError
from colbuild.export.manifest import own_files, parse_manifest, read_manifest
from colbuild.hashing import hash_file
from colbuild.plan.steps.export import MANIFEST
from colbuild.units import format_bytes
from colbuild.unpack import Bounded, Target, UnpackError, inner_parts

SUFFIX: Final = ".tar.zst"
LEVEL: Final = 10
"""Weights hardly shrink, whatever is tried; the tokenizer and the graph do."""
_MODE: Final = 0o644


def pack(folder: Path, file: Path) -> str:
    """Writes a package into one file, and returns that file's sha256.

    Raises:
        BuildError: The folder is no package or not as it was built, the file cannot be written, or zstandard is not installed.
    """
    zstandard = _zstandard()
    files = own_files(folder, read_manifest(folder))
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with (
            draft.open("wb") as raw,
            zstandard.ZstdCompressor(level=LEVEL).stream_writer(raw, closefd=False) as packed,
            tarfile.open(fileobj=packed, mode="w|", format=tarfile.USTAR_FORMAT) as tar,
        ):
            for entry in files:
                _add(tar, folder, entry.path)
        draft.replace(file)
    except OSError as error:
        raise BuildError(f"{file} cannot be written: {error.strerror}") from None
    except ValueError as error:  # tarfile's, for a name or a size that a header has no room for
        raise BuildError(f"{folder} cannot be packed: {error}", hint="send the folder itself") from None
    finally:
        draft.unlink(missing_ok=True)
    return hash_file(file)


def _add(tar: tarfile.TarFile, folder: Path, path: str) -> None:
    entry = tarfile.TarInfo(path)
    entry.size, entry.mode = (folder / path).stat().st_size, _MODE
    with (folder / path).open("rb") as content:
        tar.addfile(entry, content)


@contextmanager
def unpacked(package: Path) -> Iterator[Path]:
    """A package's folder: the one that is given, or for the time being what lies in a file of `pack`.

    Raises:
        BuildError: The file is no archive, or holds other things than files inside its folder, or more than its manifest lists.
    """
    if not package.is_file():
        yield package
        return
    zstandard = _zstandard()
    with TemporaryDirectory(prefix="colbuild-") as temporary:
        try:
            _unpack(package, Path(temporary))
        except (tarfile.TarError, UnpackError, zstandard.ZstdError) as error:
            raise BuildError(f"{package} is not a packed package: {error}", hint=_HINT) from None
        except OSError as error:
            raise BuildError(f"{package} cannot be unpacked: {error.strerror}") from None
        yield Path(temporary)


def _unpack(package: Path, folder: Path) -> None:
    """Writes a package's files, once it is known that they are all it holds and as large as its manifest says."""
    with package.open("rb") as raw:
        most = _check_members(package, raw)
        raw.seek(0)
        with Target(folder, files=PACKED_FILES, size=most) as target:
            for member, content in _members(raw, most):
                if member.isdir():
                    target.folder(member.name)
                else:
                    target.write(member.name, content, member.size)


def _check_members(package: Path, raw: IO[bytes]) -> int:
    """Reads an archive without writing anything; returns the most bytes that its files may have.

    Raises:
        UnpackError: A member is neither a regular file nor a folder, or larger than the manifest says; or there are too many.
        BuildError: It holds no manifest, or a damaged one.
    """
    packed = os.fstat(raw.fileno()).st_size
    most = PACKED_RATIO * packed + PACKED_SPARE
    sizes: dict[str, int] = {}
    manifest = None
    for count, (member, content) in enumerate(_members(raw, most)):
        inner_parts(member.name)
        if count >= PACKED_FILES:
            raise UnpackError(f"it holds more than {PACKED_FILES:,} files, the limit")
        if member.isdir():
            continue
        if member.name in sizes:
            raise UnpackError(f"'{member.name}' is in the archive twice")
        sizes[member.name] = member.size
        if member.name == MANIFEST and member.size <= MANIFEST_BYTES:
            manifest = parse_manifest(content.exactly(member.size), package / MANIFEST)
    if manifest is None:
        raise UnpackError(f"it holds no {MANIFEST} of at most {format_bytes(MANIFEST_BYTES)}")
    for file in manifest.files:
        if (found := sizes.get(file.path, 0)) > file.size:
            raise UnpackError(f"'{file.path}' has {found:,} bytes in it, the manifest says {file.size:,}")
    # What the manifest does not list is no file of the package; there is room enough to say which it is.
    most = sum(file.size for file in manifest.files) + sizes[MANIFEST] + MANIFEST_BYTES
    if (total := sum(sizes.values())) > most:
        raise UnpackError(f"it unpacks to {format_bytes(total)}, more than its manifest lists: {format_bytes(most)}")
    return total


def _members(raw: IO[bytes], most: int) -> Iterator[tuple[tarfile.TarInfo, Bounded]]:
    """The members of an archive in order, each with the stream that its content comes from, which need not be read.

    Only headers as `pack` writes them are read: no library's further kinds (long names, sparse files, links) take part.
    """
    zstandard = _zstandard()
    packed = format_bytes(os.fstat(raw.fileno()).st_size)
    with zstandard.ZstdDecompressor(max_window_size=PACKED_WINDOW).stream_reader(raw, closefd=False) as unpacked_bytes:
        # Headers and the room up to a whole block are in the archive besides the files.
        room = most + (PACKED_FILES + 20) * 2 * tarfile.BLOCKSIZE
        stream = Bounded(unpacked_bytes, room, f"a file of {packed} unpacks to")
        while header := stream.exactly(tarfile.BLOCKSIZE):
            if not header.strip(b"\0"):
                return
            member = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
            member.name = member.name.removeprefix("./").rstrip("/") or "."
            if member.isdir() and member.name == ".":
                continue
            if not (member.isdir() or member.type in (tarfile.REGTYPE, tarfile.AREGTYPE)):
                kind = _KINDS.get(member.type, "something else")
                raise UnpackError(f"'{member.name}' in it is {kind}; a package holds regular files only")
            if member.size < 0 or (member.isdir() and member.size):
                raise UnpackError(f"'{member.name}' in it has an impossible size")
            ends = stream.taken + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            yield member, stream
            while stream.taken < ends:
                if not stream.read(ends - stream.taken):
                    raise UnpackError(f"it ends within '{member.name}'")


_KINDS: Final = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}
_HINT: Final = "give a package's folder, or what 'colbuild pack' wrote"


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError:
        raise BuildError(
            f"a package as one file ({SUFFIX}) needs zstandard", hint='install it with: pip install "colbuild[archive]"'
        ) from None
    return zstandard
