"""Extracts files from a wheel or sdist: streamed, never run, and no other file is written."""

from __future__ import annotations

import difflib
import lzma
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, cast

from colbuild.arriving import Bound, BoundError
from colbuild.bounds import MEMBERS
from colbuild.errors import SourceUnavailableError
from colbuild.fetch.unpacked import Reading, Unpacked, unpacked_bound
from colbuild.progress import Progress, Report, silent
from colbuild.spec.sources.choice import chosen
from colbuild.spec.sources.source_kinds import is_plain_path
from colbuild.unpack import Target, UnpackError

_SHOWN: Final = 8
_LISTED: Final = 2000
_LONGEST_LISTED: Final = 300
_METHODS: Final = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2})
"""LZMA's memory is as large as the archive says, and no wheel has it."""
_DAMAGE: Final = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError),
    # What the libraries raise about numbers, names and nesting that cannot be.
    *(ValueError, OverflowError, IndexError, KeyError, TypeError, struct.error, NotImplementedError, RuntimeError),
)


class MemberMissingError(Exception):
    """An archive does not have the member that was asked for.

    Attributes:
        archive: The archive's name.
        near: Members that may have been meant.
    """

    def __init__(self, archive: str, near: Sequence[str]) -> None:
        super().__init__(archive)
        self.archive = archive
        self.near = tuple(near)


def extract(
    archive: Path, name: str, member: str, target: Path, globs: Sequence[str] = (), report: Report = silent
) -> None:
    """Writes one regular file of an archive to `target`, or, with `globs`, those files of a folder that they match.

    Args:
        archive: A zip or tar file, compressed or not.
        name: What it is called; its ending says what it is.
        member: The file's path in it.
        target: Where to write; nothing is there yet.
        globs: Which files of the folder `member` are meant; if empty, `member` is a file.
        report: Told how much was written.

    Raises:
        MemberMissingError: It is not in the archive, or no glob matches.
        SourceUnavailableError: It is no regular file, or the archive is damaged, or unpacks to more than it may.
        OSError: The disk refuses.
    """
    wanted = _Wanted(member, tuple(globs), target, report)
    try:
        if name.endswith((".whl", ".zip", ".egg")):
            _from_zip(archive, name, wanted)
        else:
            _from_tar(archive, name, wanted)
    except (BoundError, UnpackError) as error:
        raise SourceUnavailableError(f"{name} cannot be unpacked: {error}") from None
    except (*_DAMAGE, OSError) as error:
        # Decompressors raise an OSError without a number for bytes that make no sense; a disk's errors have one.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = str(error)[:200] or type(error).__name__
        raise SourceUnavailableError(f"{name} is damaged: '{member}' cannot be read from it ({reason})") from None


@dataclass(frozen=True)
class _Wanted:
    """The requested members of an archive: a file, or the files of a folder that a glob matches."""

    member: str
    globs: tuple[str, ...]
    target: Path
    report: Report

    @property
    def folder(self) -> Path:
        """The folder for extracted members."""
        return self.target if self.globs else self.target.parent

    def place(self, path: str) -> str | None:
        """The name that a member has in that folder; None if it is not asked for."""
        if not self.globs:
            return self.target.name if path == self.member else None
        inside = path.removeprefix(f"{self.member}/")
        # A path that leads elsewhere is never asked for: what is written stays below the target.
        if inside == path or not is_plain_path(inside) or any(part.startswith(".") for part in inside.split("/")):
            return None
        return inside if chosen([inside], self.globs) else None

    def missing(self, archive: str, names: Sequence[str]) -> MemberMissingError:
        """The error if nothing of it is in the archive."""
        names = [name for name in names if len(name) <= _LONGEST_LISTED][:_LISTED]
        inside = [name for name in names if self.globs and name.startswith(f"{self.member}/")]
        return MemberMissingError(archive, inside[:_SHOWN] or _near(self.member, names))

    def into(self, bound: Bound) -> Target:
        """Makes the target for extracted members."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return Target(self.folder, files=MEMBERS, size=bound.bytes)

    def told(self, content: IO[bytes], done: int) -> IO[bytes]:
        """The same content, whose reading is told."""
        return cast(IO[bytes], _Told(content, done, self.report))


@dataclass
class _Told:
    """Content of which is told how much was read."""

    content: IO[bytes]
    done: int
    report: Report

    def read(self, size: int) -> bytes:
        block = self.content.read(size)
        self.done += len(block)
        self.report(Progress(self.done, 0, "bytes", "unpacking"))
        return block


def _from_zip(archive: Path, name: str, wanted: _Wanted) -> None:
    with archive.open("rb") as file, zipfile.ZipFile(cast(IO[bytes], Reading(file))) as opened:
        names = opened.namelist() if wanted.globs else [wanted.member]
        places = {
            path: place for path in names if path and path[-1] != "/" and (place := wanted.place(path)) is not None
        }
        if not places.keys() <= opened.NameToInfo.keys():
            raise wanted.missing(name, opened.namelist())
        entries = [opened.getinfo(path) for path in places]
        if not entries:
            raise wanted.missing(name, names)
        for entry in entries:
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if entry.is_dir() or kind not in (0, stat.S_IFREG):
                raise _no_file(name, entry.filename)
            if entry.flag_bits & 1:
                raise SourceUnavailableError(f"'{entry.filename}' in {name} is encrypted")
            if entry.compress_type not in _METHODS:
                raise SourceUnavailableError(f"'{entry.filename}' in {name} has a compression that wheels do not use")
        bound = unpacked_bound(archive.stat().st_size)
        _check_room(bound, sum(entry.file_size for entry in entries), archive)
        done = 0
        with wanted.into(bound) as target:
            for entry in entries:
                with opened.open(entry) as content:
                    done += target.write(places[entry.filename], wanted.told(content, done))


def _from_tar(archive: Path, name: str, wanted: _Wanted) -> None:
    bound = unpacked_bound(archive.stat().st_size)
    names: list[str] = []
    done, written = 0, False
    with (
        archive.open("rb") as file,
        tarfile.open(fileobj=cast(IO[bytes], Unpacked(file, bound)), mode="r:") as opened,
        wanted.into(bound) as target,
    ):
        for number, entry in enumerate(opened):
            if number > MEMBERS:
                raise BoundError(f"it has more than {MEMBERS:,} members, the limit")
            path = entry.name.removeprefix("./")
            place = wanted.place(path)
            if place is None or (wanted.globs and entry.isdir()):
                names.append(path[: _LONGEST_LISTED + 1])
                continue
            # A sparse file is as large as its header says, whatever the archive has.
            if not entry.isreg() or entry.issparse() or entry.size < 0:
                raise _no_file(name, path)
            _check_room(bound, done + entry.size, archive)
            with cast(IO[bytes], opened.extractfile(entry)) as member:
                done += target.write(place, wanted.told(member, done), entry.size)
            written = True
            if not wanted.globs:
                return
    if not written:
        raise wanted.missing(name, names)


def _check_room(bound: Bound, size: int, archive: Path) -> None:
    """Compares what the members' headers say with what they may be, before anything is written. Raises BoundError."""
    bound.check(size)
    Bound(shutil.disk_usage(archive.parent).free, "the free disk space").check(size)


def _no_file(name: str, member: str) -> SourceUnavailableError:
    return SourceUnavailableError(f"'{member}' in {name} is a folder or a link, not a file")


def _near(member: str, names: Sequence[str]) -> list[str]:
    """Members of the same file name, then those whose paths look alike."""
    same = [name for name in names if name.rsplit("/", 1)[-1] == member.rsplit("/", 1)[-1]]
    return list(dict.fromkeys([*same[:3], *difflib.get_close_matches(member, names, n=3, cutoff=0.4)]))
