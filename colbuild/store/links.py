"""Links a stored file to another place: as a clone, a hard link or a copy."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
from pathlib import Path

SHARED_BYTES = 1 << 20
"""Smaller files are copied: these are what people edit, and an edit must not reach the store."""

_FICLONE = 0x40049409
"""The ioctl that makes a file a clone of another (linux/fs.h); the architectures that number it otherwise refuse it."""


def put(source: Path, place: Path, size: int) -> None:
    """Puts a stored file of `size` bytes at `place`, where nothing is yet.

    A clone shares the blocks until one of the two is written, so it is the best: `place` is a file of its own. A hard link
    is the same read-only file. A copy works everywhere.

    Raises:
        OSError: The disk refuses.
    """
    if size < SHARED_BYTES or not (clone(source, place) or _link(source, place)):
        shutil.copyfile(source, place)


def clone(source: Path, place: Path) -> bool:
    """Makes `place` a clone of `source`; False, with nothing at `place`, where the file systems have no such thing."""
    if sys.platform != "linux":
        return False
    try:
        with source.open("rb") as original, place.open("xb") as copy:
            fcntl.ioctl(copy.fileno(), _FICLONE, original.fileno())
    except OSError:
        place.unlink(missing_ok=True)
        return False
    return True


def _link(source: Path, place: Path) -> bool:
    try:
        os.link(source, place)
    except OSError:
        # Another file system, or one without hard links.
        return False
    return True
