"""Locks between processes, and scratch places that are cleaned up even after a crash.

A lock is a `flock` on a small file: the kernel releases it however its process ends. The file is removed by the holder, so
whoever then gets the lock checks that it locked the file that stands at the path now, and tries again if not.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_SUFFIX = ".lock"
_FILE_SUFFIX = ".file"
_LOOK_EVERY = 0.1
"""Seconds between two looks at a lock that somebody else holds, for those who must look elsewhere too."""


def _nothing() -> None:
    """For holders who do not care that they wait."""


@contextmanager
def hold(path: Path, on_wait: Callable[[], None] = _nothing, check: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock at `path`: no other process or thread holds it meanwhile.

    Args:
        path: The lock file.
        on_wait: Called before a wait.
        check: Called a few times a second during a wait; an error that it raises ends the wait.
    """
    descriptor = _lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if descriptor is None:
        on_wait()
    while descriptor is None:
        if check is None:
            descriptor = _lock(path, fcntl.LOCK_EX)
        else:
            check()
            time.sleep(_LOOK_EVERY)
            descriptor = _lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        yield
    finally:
        _release(path, descriptor)


@contextmanager
def scratch_path(folder: Path) -> Iterator[Path]:
    """A fresh path in `folder` at which nothing exists yet. What is there at the end is removed."""
    path = folder / uuid.uuid4().hex
    with hold(path.with_suffix(_SUFFIX)):
        try:
            yield path
        finally:
            remove(path)


@contextmanager
def scratch_file(folder: Path) -> Iterator[tuple[Path, int]]:
    """A fresh empty file in `folder`, and its descriptor. It is removed at the end, unless it was moved away.

    It is its own lock: one file to make for each of the many small ones that are written.
    """
    path = folder / f"{uuid.uuid4().hex}{_FILE_SUFFIX}"
    descriptor = _lock(path, fcntl.LOCK_EX)
    assert descriptor is not None
    try:
        yield path, descriptor
    finally:
        _release(path, descriptor)


def remove_stale(folder: Path) -> None:
    """Remove the scratch paths of processes that no longer live.

    The lock is taken before the path is made, so a path without a lock file belongs to nobody, unless it is its own lock.
    """
    names = {entry.name for entry in folder.iterdir()}
    for name in sorted({name.removesuffix(_SUFFIX) for name in names}):
        lock = folder / (name if name.endswith(_FILE_SUFFIX) else f"{name}{_SUFFIX}")
        descriptor = _lock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if descriptor is not None:
            try:
                remove(folder / name)
            finally:
                _release(lock, descriptor)


def remove(path: Path) -> None:
    """Remove a file or a whole tree, read-only folders included; nothing happens if it is not there."""
    if path.is_dir() and not path.is_symlink():
        for folder, _, _ in os.walk(path):
            Path(folder).chmod(0o700)
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _lock(path: Path, operation: int) -> int | None:
    """A descriptor that holds the lock, or None if the operation does not wait and another holds it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, operation)
            if _stands_at(path, descriptor):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _stands_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _release(path: Path, descriptor: int) -> None:
    with suppress(OSError):
        path.unlink()
    os.close(descriptor)
