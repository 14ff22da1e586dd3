"""Stamps of files: size, times and inode, by which changed content is detected without reading it.

A stamp is (size, mtime in ns, inode). Any ordinary write changes it; so do moving a store to another disk, unpacking it from
an archive or touching a file, which do no harm. Another stamp is therefore a reason to read the file, never a verdict. Left out
are the ctime and the count of links, which change whenever a file is linked into `out/` or that link is removed, and the number
of the device, which differs from boot to boot on some systems. What changes bytes and leaves the stamp, such as a failing disk,
only reading finds.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from colbuild.hashing import walk_files
from colbuild.store.durable_files import read_json, write_json

Stamp = tuple[int, int, int]
"""Size in bytes, time of the last change in ns, inode."""

Stamps = Mapping[str, Stamp]
"""Relative path -> stamp, of every file in a tree."""


def stamp_of(status: os.stat_result) -> Stamp:
    """The stamp in a file's status."""
    return status.st_size, status.st_mtime_ns, status.st_ino


def stamps_of(root: Path) -> dict[str, Stamp]:
    """The stamps of every file below `root`. Raises what `walk_files` raises."""
    return {path: stamp_of(status) for path, status in walk_files(root).items()}


def read_stamps(path: Path) -> Stamps:
    """The stamps noted in a file; none if it is missing or damaged, and then everything has to be read."""
    value = read_json(path)
    if not isinstance(value, dict):
        return {}
    return {name: stamp for name, row in value.items() if (stamp := stamp_from_json(row)) is not None}


def write_stamps(scratch: Path, path: Path, stamps: Stamps) -> None:
    """Notes stamps in the file `path`, by way of the folder `scratch`. Raises OSError."""
    write_json(scratch, path, stamps)
    path.chmod(0o444)


def stamp_from_json(row: Any) -> Stamp | None:
    """The stamp behind JSON values; None if they are not one."""
    if isinstance(row, list) and len(row) == 3 and all(type(number) is int for number in row):
        return row[0], row[1], row[2]
    return None
