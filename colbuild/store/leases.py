"""Leases: they keep the collector away from a result that is about to be used.

An object's folder carries the time of its publication or last use as its own mtime; for a day after that it is leased, whoever
needs it. A build *claims* a result (`Store.claim`): it looks the result up and renews the lease while it holds the
collector's lock together with other builds. The collector takes that lock alone while it decides and moves garbage out
of the way::

    build       [shared: lookup, renew] … [shared: lookup, renew] …
    collector                          [alone: roots, leases, move away]  then delete

So a claimed object either was gone at the lookup, which is a miss, or is leased when the collector looks.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from colbuild.store.layout import Layout
from colbuild.store.locks import NO_LOCKS

LEASE: Final = 24 * 3600.0
"""Seconds for which a result is kept after it was published or used, whoever needs it."""

_RENEWED_AFTER: Final = 3600.0
"""A younger lease is left as it is: a build with nothing to do writes nothing."""

_LOCK: Final = "gc"


@contextmanager
def shared(layout: Layout) -> Iterator[None]:
    """Keeps the collector out, together with anybody else who does; waits while it decides.

    Where no lock can be taken, since the store does not exist or may only be read, nothing could be protected either.
    """
    descriptor = _open(layout)
    if descriptor is None:
        yield
        return
    try:
        _flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def alone(layout: Layout) -> Iterator[None]:
    """Keeps everybody out who claims results; waits until they have. Raises OSError where the store cannot be written.

    Where the file system has no locks nobody is kept out: leases protect, and a result that goes all the same is built again.
    """
    descriptor = os.open(layout.lock(_LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        _flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def renew(layout: Layout, digest: str) -> bool:
    """Begins an object's lease anew; says whether the object is there."""
    with shared(layout):
        return renew_while_shared(layout, digest)


def renew_while_shared(layout: Layout, digest: str) -> bool:
    """Like `renew`; the caller keeps the collector out."""
    try:
        if not 0 <= time.time() - used_at(layout, digest) < _RENEWED_AFTER:
            os.utime(layout.object(digest))
    except FileNotFoundError:
        return False
    except OSError:
        # Another user's store: its owner decides what stays.
        return True
    return True


def used_at(layout: Layout, digest: str) -> float:
    """When an object was published or last claimed, in seconds since 1970. Raises FileNotFoundError if it is gone."""
    return layout.object(digest).stat().st_mtime


def is_leased(used: float, now: float, lease: float) -> bool:
    """Returns whether what was used then is leased now. What lies in the future is fresh: the clock was set back since."""
    return now - used < lease


def is_held(path: Path) -> bool:
    """Returns whether a process holds the flock of a file: a build that is running holds its record's.

    A file that may not be read, or lies on a file system without locks, counts as free.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        _flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _flock(descriptor: int, operation: int) -> None:
    """Locks a file where its file system has locks. Raises BlockingIOError, OSError."""
    try:
        fcntl.flock(descriptor, operation)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise


def _open(layout: Layout) -> int | None:
    """The lock file, which stays in its place: shared holders could not tell who is the last to remove it."""
    path = layout.lock(_LOCK)
    for flags in (os.O_RDWR | os.O_CREAT, os.O_RDONLY):
        try:
            return os.open(path, flags | os.O_CLOEXEC, 0o666)
        except OSError:
            continue
    return None
