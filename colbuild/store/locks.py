"""Locks between processes, and temporary places that are cleaned up even after a crash.

A lock is a `flock` on a small file: the kernel releases it however its process ends. The file is removed by the holder, so
whoever then gets the lock checks that it locked the file that stands at the path now, and tries again if not.

Some file systems have no locks (NFS without its lock service, Lustre without `flock`), and some stores may only be read. A file
in this machine's folder for temporary files then stands in for the lock: it excludes the user's other builds on this machine.
Builds on other machines are not excluded; they may do the same work twice, and what they publish is equal and appears whole.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from colbuild.hashing import hash_bytes

NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS})
"""What `flock` says on a file system that has no locks."""

NOT_ALLOWED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
"""What a file system says of a place that may only be read."""

_OLD: Final = 24 * 3600.0
"""Seconds after which a scratch place counts as left behind where locks cannot tell."""

_SUFFIX = ".lock"
_FILE_SUFFIX = ".file"
_LOOK_EVERY = 0.1
"""Seconds between two looks at a lock that somebody else holds, for those who must look elsewhere too."""


def _nothing() -> None:
    """For holders who do not care that they wait."""


@contextmanager
def hold(path: Path, on_wait: Callable[[], None] = _nothing, check: Callable[[], None] | None = None) -> Iterator[None]:
    """Holds the lock at `path`: no other process or thread holds it meanwhile.

    Args:
        path: The lock file.
        on_wait: Called before a wait.
        check: Called a few times a second during a wait; an error that it raises ends the wait.
    """
    held = _lock_or_stand_in(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if held is None:
        on_wait()
    while held is None:
        if check is None:
            held = _lock_or_stand_in(path, fcntl.LOCK_EX)
        else:
            check()
            time.sleep(_LOOK_EVERY)
            held = _lock_or_stand_in(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        yield
    finally:
        held.release()


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
    held = _lock(path, fcntl.LOCK_EX)
    assert held is not None
    try:
        yield path, held.descriptor
    finally:
        held.release()


def remove_stale(folder: Path) -> None:
    """Removes the scratch paths of processes that no longer live.

    The lock is taken before the path is made, so a path without a lock file belongs to nobody, unless it is its own lock.
    """
    names = {entry.name for entry in folder.iterdir()}
    for name in sorted({name.removesuffix(_SUFFIX) for name in names}):
        lock = folder / (name if name.endswith(_FILE_SUFFIX) else f"{name}{_SUFFIX}")
        held = _lock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if held is not None:
            try:
                # Nobody can tell whether another machine works there, so what is young is left alone.
                if not held.stands_in or _is_old(folder / name):
                    remove(folder / name)
            finally:
                held.release()


def remove(path: Path) -> None:
    """Removes a file or a whole tree, read-only folders included; nothing happens if it is not there."""
    if path.is_dir() and not path.is_symlink():
        for folder, _, _ in os.walk(path):
            Path(folder).chmod(0o700)
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Held:
    """A lock that is held: the file at `path`, open, and where file systems have no locks the lock that stands in for it."""

    path: Path
    descriptor: int
    stand_in: _Held | None = None
    stands_in: bool = False

    def release(self) -> None:
        """Removes the file and frees the lock."""
        with suppress(OSError):
            self.path.unlink()
        os.close(self.descriptor)
        if self.stand_in is not None:
            self.stand_in.release()


def _lock_or_stand_in(path: Path, operation: int) -> _Held | None:
    """Like `_lock`; where the file itself cannot be made, the lock that stands in for it is enough."""
    try:
        return _lock(path, operation)
    except OSError as error:
        if error.errno not in NOT_ALLOWED:
            raise
        try:
            return _lock(_stand_in(path), operation)
        except OSError:
            raise error from None


def _lock(path: Path, operation: int) -> _Held | None:
    """The lock, or None if the operation does not wait and another holds it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, operation)
            if _stands_at(path, descriptor):
                return _Held(path, descriptor)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                os.close(descriptor)
                raise
            return _instead(path, descriptor, operation)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _instead(path: Path, descriptor: int, operation: int) -> _Held | None:
    """The lock at `path`, which is open, by way of the one that stands in for it."""
    place = _stand_in(path)
    if place == path:
        # The folder for temporary files has no locks either: there is nothing to hold.
        return _Held(path, descriptor, stands_in=True)
    try:
        stand_in = _lock(place, operation)
    except BaseException:
        os.close(descriptor)
        raise
    if stand_in is None:
        os.close(descriptor)
        return None
    return _Held(path, descriptor, stand_in, stands_in=True)


def _stand_in(path: Path) -> Path:
    """Where a lock lies that stands in for the one at `path`; such a lock stands in for itself."""
    folder = Path(tempfile.gettempdir()) / f"colbuild-locks-{os.geteuid()}"
    if path.parent == folder:
        return path
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.geteuid():
        raise PermissionError(errno.EACCES, "another user made the folder of this user's locks", str(folder))
    name = hash_bytes(os.fsencode(path.parent.resolve() / path.name))
    return folder / f"{name}{_SUFFIX}"


def _is_old(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > _OLD
    except FileNotFoundError:
        return True


def _stands_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
