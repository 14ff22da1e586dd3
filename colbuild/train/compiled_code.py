"""Compiled code for later trainings, used only if its digests match.

A compiler's cache has no checksums of its own: one flipped bit in it would compute other weights. So the digest of every file
is noted when a training ends, and whatever is not as noted is removed before the next one begins. Trainings may share the
cache at the same time: it is checked before the first of them and noted after the last.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from colbuild.hashing import hash_file
from colbuild.store.durable_files import checked, read_json, unchecked, write_json

NOTE: Final = ".digests.json"
_LOCK: Final = ".lock"


@contextmanager
def sound_cache(folder: Path) -> Iterator[None]:
    """Within the block `folder` is a compiler's cache that holds nothing damaged.

    What a training leaves that is killed is not noted, and so is compiled again.

    Raises:
        OSError: The folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("a") as lock:
        if _alone(lock.fileno()):
            _remove_unsound(folder)
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_SH)
        try:
            yield
        finally:
            if _alone(lock.fileno()):
                # What cannot be noted is compiled again by the next training.
                with suppress(OSError):
                    write_json(
                        folder,
                        folder / NOTE,
                        checked({"files": {_name(folder, one): hash_file(one) for one in _files(folder)}}),
                    )


def _remove_unsound(folder: Path) -> None:
    values = unchecked(read_json(folder / NOTE)) or {}
    noted = values.get("files")
    known = noted if isinstance(noted, dict) else {}
    for path in _files(folder):
        if known.get(_name(folder, path)) != hash_file(path):
            path.unlink()


def _files(folder: Path) -> list[Path]:
    own = (folder / NOTE, folder / _LOCK)
    return sorted(path for path in folder.rglob("*") if path.is_file() and path not in own)


def _name(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()


def _alone(descriptor: int) -> bool:
    """Returns whether no other training uses the cache; where the file system has no locks nobody can tell."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
