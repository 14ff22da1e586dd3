"""One file out of a wheel or sdist: streamed, never run, and nothing else is written."""

from __future__ import annotations

import difflib
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from colbuild.errors import SourceUnavailableError

_BLOCK = 1 << 20
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


def extract(archive: Path, name: str, member: str, target: Path) -> None:
    """Writes one regular file of an archive to `target`.

    Args:
        archive: A zip or tar file, compressed or not.
        name: What it is called; its ending says what it is.
        member: The file's path in it.
        target: Where to write; nothing is there yet.

    Raises:
        MemberMissingError: It is not in the archive.
        SourceUnavailableError: It is no regular file, or the archive is damaged.
        OSError: The disk refuses.
    """
    try:
        if name.endswith((".whl", ".zip", ".egg")):
            _from_zip(archive, name, member, target)
        else:
            _from_tar(archive, name, member, target)
    except (*_DAMAGE, OSError) as error:
        # Decompressors raise an OSError without a number for bytes that make no sense; a disk's errors have one.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise SourceUnavailableError(f"{name} is damaged: '{member}' cannot be read from it ({error})") from None


def _from_zip(archive: Path, name: str, member: str, target: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        try:
            entry = opened.getinfo(member)
        except KeyError:
            raise MemberMissingError(name, _near(member, opened.namelist())) from None
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if entry.is_dir() or kind not in (0, stat.S_IFREG):
            raise _no_file(name, member)
        if entry.flag_bits & 1:
            raise SourceUnavailableError(f"'{member}' in {name} is encrypted")
        with opened.open(entry) as content:
            _write(content, target)


def _from_tar(archive: Path, name: str, member: str, target: Path) -> None:
    names = []
    with tarfile.open(archive, "r:*") as opened:
        for entry in opened:
            if entry.name.removeprefix("./") != member:
                names.append(entry.name)
                continue
            content = opened.extractfile(entry) if entry.isreg() else None
            if content is None:
                raise _no_file(name, member)
            with content:
                _write(content, target)
            return
    raise MemberMissingError(name, _near(member, names))


def _write(content: IO[bytes], target: Path) -> None:
    with target.open("xb") as file:
        shutil.copyfileobj(content, file, _BLOCK)


def _no_file(name: str, member: str) -> SourceUnavailableError:
    return SourceUnavailableError(f"'{member}' in {name} is a folder or a link, not a file")


def _near(member: str, names: Sequence[str]) -> list[str]:
    """Members of the same file name, then those whose paths look alike."""
    same = [name for name in names if name.rsplit("/", 1)[-1] == member.rsplit("/", 1)[-1]]
    return list(dict.fromkeys([*same[:3], *difflib.get_close_matches(member, names, n=3, cutoff=0.4)]))
