"""The disk space and modification times of files; vanished files count as nothing."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path


class Links:
    """The number of names of each file to be removed: a file is freed only if it has no other name."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, int], int] = {}

    def add(self, path: Path) -> None:
        """Counts the files of something that is to be removed."""
        for status in stats_in(path):
            key = (status.st_dev, status.st_ino)
            self._seen[key] = self._seen.get(key, 0) + 1

    def sizes(self, path: Path) -> tuple[int, int]:
        """The bytes in the files of something that was added, and those that removing all of it frees.

        A file with several names frees its bytes once, wherever it is asked for first.
        """
        size = freed = 0
        for status in stats_in(path):
            size += status.st_size
            key = (status.st_dev, status.st_ino)
            if self._seen.get(key, 0) >= status.st_nlink:
                freed += status.st_size
                self._seen[key] = 0
        return size, freed


def stats_in(path: Path) -> Iterator[os.stat_result]:
    """Every file of a tree, or the file itself."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(status.st_mode):
        yield status
        return
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                yield Path(folder, name).lstat()
            except FileNotFoundError:
                continue


def size_of(path: Path) -> int:
    """The bytes in a tree's files."""
    return sum(status.st_size for status in stats_in(path))


def changed_at(path: Path) -> float:
    """Returns the time of the last change of a file or folder: the later of its two times, since a move changes only one."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return 0.0
    return max(status.st_mtime, status.st_ctime)


def newest_in(path: Path) -> float:
    """Returns the time of the last change of a folder or any file in its tree."""
    return max([changed_at(path), *(max(status.st_mtime, status.st_ctime) for status in stats_in(path))])
