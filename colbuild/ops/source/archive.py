"""One file, or chosen files, out of a wheel or sdist: streamed, never run, and nothing else is written."""

from __future__ import annotations

import difflib
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from colbuild.errors import SourceUnavailableError
from colbuild.spec.choice import chosen
from colbuild.spec.sources import is_plain_path

_BLOCK = 1 << 20
_SHOWN = 8
_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError)


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


def extract(archive: Path, name: str, member: str, target: Path, globs: Sequence[str] = ()) -> None:
    """Writes one regular file of an archive to `target`, or, with `globs`, those files of a folder that they match.

    Args:
        archive: A zip or tar file, compressed or not.
        name: What it is called; its ending says what it is.
        member: The file's path in it.
        target: Where to write; nothing is there yet.
        globs: Which files of the folder `member` are meant; if empty, `member` is a file.

    Raises:
        MemberMissingError: It is not in the archive, or no glob matches.
        SourceUnavailableError: It is no regular file, or the archive is damaged.
        OSError: The disk refuses.
    """
    wanted = _Wanted(member, tuple(globs), target)
    try:
        if name.endswith((".whl", ".zip", ".egg")):
            _from_zip(archive, name, wanted)
        else:
            _from_tar(archive, name, wanted)
    except (*_DAMAGE, OSError) as error:
        # Decompressors raise an OSError without a number for bytes that make no sense; a disk's errors have one.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise SourceUnavailableError(f"{name} is damaged: '{member}' cannot be read from it ({error})") from None


@dataclass(frozen=True)
class _Wanted:
    """What is asked of an archive: a file, or of a folder the files that a glob matches."""

    member: str
    globs: tuple[str, ...]
    target: Path

    def place(self, path: str) -> Path | None:
        """Where a member is written; None if it is not asked for."""
        if not self.globs:
            return self.target if path == self.member else None
        inside = path.removeprefix(f"{self.member}/")
        # A path that leads elsewhere is never asked for: what is written stays below the target.
        if inside == path or not is_plain_path(inside) or any(part.startswith(".") for part in inside.split("/")):
            return None
        return self.target / inside if chosen([inside], self.globs) else None

    def missing(self, archive: str, names: Sequence[str]) -> MemberMissingError:
        """The error if nothing of it is in the archive."""
        inside = [name for name in names if self.globs and name.startswith(f"{self.member}/")]
        return MemberMissingError(archive, inside[:_SHOWN] or _near(self.member, names))


def _from_zip(archive: Path, name: str, wanted: _Wanted) -> None:
    with zipfile.ZipFile(archive) as opened:
        names = opened.namelist() if wanted.globs else [wanted.member]
        places = {path: place for path in names if (place := wanted.place(path)) is not None and path[-1] != "/"}
        try:
            entries = [opened.getinfo(path) for path in places]
        except KeyError:
            raise wanted.missing(name, opened.namelist()) from None
        if not entries:
            raise wanted.missing(name, names)
        for entry in entries:
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if entry.is_dir() or kind not in (0, stat.S_IFREG):
                raise _no_file(name, entry.filename)
            if entry.flag_bits & 1:
                raise SourceUnavailableError(f"'{entry.filename}' in {name} is encrypted")
            with opened.open(entry) as content:
                _write(content, places[entry.filename])


def _from_tar(archive: Path, name: str, wanted: _Wanted) -> None:
    names, written = [], False
    with tarfile.open(archive, "r:*") as opened:
        for entry in opened:
            path = entry.name.removeprefix("./")
            place = wanted.place(path)
            if place is None or (wanted.globs and entry.isdir()):
                names.append(path)
                continue
            content = opened.extractfile(entry) if entry.isreg() else None
            if content is None:
                raise _no_file(name, path)
            with content:
                _write(content, place)
            written = True
            if not wanted.globs:
                return
    if not written:
        raise wanted.missing(name, names)


def _write(content: IO[bytes], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as file:
        shutil.copyfileobj(content, file, _BLOCK)


def _no_file(name: str, member: str) -> SourceUnavailableError:
    return SourceUnavailableError(f"'{member}' in {name} is a folder or a link, not a file")


def _near(member: str, names: Sequence[str]) -> list[str]:
    """Members of the same file name, then those whose paths look alike."""
    same = [name for name in names if name.rsplit("/", 1)[-1] == member.rsplit("/", 1)[-1]]
    return list(dict.fromkeys([*same[:3], *difflib.get_close_matches(member, names, n=3, cutoff=0.4)]))
