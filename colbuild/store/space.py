"""Free space of a file system."""

from __future__ import annotations

import shutil
from pathlib import Path


def existing(path: Path) -> Path:
    """A path itself, or the nearest folder above it that is there."""
    return next((folder for folder in (path, *path.parents) if folder.exists()), path)


def free_bytes(path: Path) -> int | None:
    """Bytes that are free where a path is or is going to be; None where the file system does not tell."""
    try:
        usage = shutil.disk_usage(existing(path))
    except OSError:
        return None
    # Some network and virtual file systems tell nothing of their size.
    return usage.free if usage.total else None


def same_file_system(one: Path, other: Path) -> bool:
    """Returns whether two paths are, or are going to be, on one file system."""
    try:
        return existing(one).stat().st_dev == existing(other).stat().st_dev
    except OSError:
        return True
