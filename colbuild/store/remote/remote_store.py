"""A store at a URL that several machines share.

::

    <url>/
      format                      the version of this layout
      objects/<aa>/<digest>/      files/… first, then tree.json: a tree with a list is complete
      actions/<aa>/<key>.json     last of all: a record is there only when its result is
      tmp/                        files on their way, where a file system has no other way

These are the names of the local store, so a copy of the folder is a store. Nothing that comes from there is used before its
digest is checked, except for one thing that no digest tells: **which** result a key has. Whoever may write to a remote
decides that.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from colbuild.errors import BuildError
from colbuild.hashing import TreeEntry
from colbuild.progress import Progress, Report
from colbuild.store.durable_files import storage_errors, write_json_durably
from colbuild.store.layout import FORMAT, Layout, read_mark
from colbuild.store.leases import renew
from colbuild.store.objects import Tree, read_tree
from colbuild.store.records import ActionRecord, record_to_json
from colbuild.store.remote.remote_calls import MissingError, RejectedError, RemoteError
from colbuild.store.remote.remote_check import RECORD_LIMIT, TREE_LIMIT, KeyOf, checked_record, checked_tree
from colbuild.store.remote.remote_files import RemoteFiles
from colbuild.store.remote.remote_opening import open_files
from colbuild.store.store import Store

__all__ = [
    "Pushed",
    "RejectedError",
    "Remote",
    "RemoteError",
    "action_path",
    "check",
    "fetch",
    "look",
    "object_path",
    "open_remote",
]

TIMEOUT: Final = 60.0
TIMEOUT_VARIABLE: Final = "COLBUILD_REMOTE_TIMEOUT"
PAUSES: Final = (0.5, 2.0)
"""Seconds before the second and the third attempt."""

_FORMAT_LIMIT: Final = 100
_NAMES: Final = Layout(Path())
"""The local store's names, without a root."""


@dataclass(frozen=True)
class Remote:
    """A store at a URL.

    Attributes:
        files: What lies there.
    """

    files: RemoteFiles

    @property
    def name(self) -> str:
        """Its URL, without credentials."""
        return self.files.calls.name


@dataclass(frozen=True)
class Pushed:
    """The result of a push.

    Attributes:
        objects: How many results had to be sent, in part or as a whole.
        bytes: How much that was.
        records: How many actions the remote did not know before.
        skipped: How many results it had already.
        differing: Steps for which it has another result; that one stays.
        damaged: Steps whose result here is damaged, and what is wrong with it; they were not sent.
    """

    objects: int = 0
    bytes: int = 0
    records: int = 0
    skipped: int = 0
    differing: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()


def open_remote(url: str, timeout: float | None = None, pauses: tuple[float, ...] = PAUSES) -> Remote:
    """The store at an fsspec URL; it need not exist yet, and is not asked anything.

    Args:
        url: Such as `s3://bucket/folder` or `file:///folder`. How to get in is fsspec's own configuration.
        timeout: Seconds after which an operation counts as hung; one moves a few MiB at most. By default
            `COLBUILD_REMOTE_TIMEOUT`, else 60.
        pauses: Seconds before each further attempt, where trouble may pass.

    Raises:
        BuildError: The URL cannot be used: an unknown protocol, a package is missing, or the variable holds no seconds.
        RemoteError: It does not answer.
    """
    return Remote(open_files(url, _timeout() if timeout is None else timeout, pauses))


def _timeout() -> float:
    said = os.environ.get(TIMEOUT_VARIABLE)
    if not said:
        return TIMEOUT
    try:
        seconds = float(said)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise BuildError(f"{TIMEOUT_VARIABLE} is '{said}'", hint="set it to a number of seconds, such as 60")
    return seconds


def check(remote: Remote) -> bool:
    """Returns whether anything was pushed to a remote; also tells whether it answers, and can be understood.

    Raises:
        RemoteError: It does not answer, is something else, or was written by a newer colbuild.
    """
    content = remote.files.read("format", _FORMAT_LIMIT)
    if content is None:
        return False
    version = read_mark(content.decode("ascii", errors="replace"))
    if version is None:
        raise RemoteError(f"{remote.name} is not a store: its file 'format' was not written by colbuild")
    if version > FORMAT:
        message = f"{remote.name} was written by a newer colbuild (format {version}; this one reads up to {FORMAT})"
        raise RemoteError(message, hint="upgrade colbuild")
    return True


# -- from a remote ----------------------------------------------------------------------------------------------------


def look(remote: Remote, key: str, key_of: KeyOf | None = None) -> ActionRecord | None:
    """Returns a remote's record of an action, without its result; None if it has none.

    Args:
        remote: Where to look.
        key: The action's.
        key_of: Works out the key that a record's own parameters and inputs have, to tell one that belongs elsewhere.

    Raises:
        RejectedError: What it says cannot be.
        RemoteError: It cannot be asked.
    """
    path = action_path(key)
    content = remote.files.read(path, RECORD_LIMIT)
    if content is None:
        return None
    try:
        return checked_record(content, key, key_of)
    except RejectedError as error:
        raise _rejected(remote, path, error) from None


def fetch(remote: Remote, store: Store, key: str, report: Report, key_of: KeyOf | None = None) -> ActionRecord | None:
    """Brings an action's result into the store; None if the remote does not have all of it.

    The store is prepared, and the caller holds the key. What is fetched is a result like any other afterwards, except that its
    `seconds` are 0: it never ran here.

    Args:
        remote: Where from.
        store: Where to.
        key: The action's.
        report: Told how many bytes came.
        key_of: See `look`.

    Raises:
        RejectedError: It is not what the remote says it is; nothing of it was kept.
        RemoteError: It cannot be had: the remote does not answer, is too slow, or stopped in the middle.
        BuildError: The disk refuses.
    """
    record = look(remote, key, key_of)
    if record is None:
        return None
    here = _held_here(store, record.output)
    if here is None:
        try:
            here = _download(remote, store, record, report)
        except MissingError:
            return None
    if here.size != record.size:
        reason = RejectedError(f"its result has {here.size:,} bytes, not {record.size:,}")
        raise _rejected(remote, action_path(key), reason)
    with storage_errors(store.root):
        write_json_durably(store.layout.folder("tmp"), store.layout.action(key), record_to_json(record))
    return record


def _held_here(store: Store, digest: str) -> Tree | None:
    """A result that the store has for another reason, if it is sound; it is leased from now on."""
    if not renew(store.layout, digest) or store.check(digest) is not None:
        return None
    return read_tree(store.layout, digest)


def _download(remote: Remote, store: Store, record: ActionRecord, report: Report) -> Tree:
    path = f"{object_path(record.output)}/tree.json"
    content = remote.files.read(path, TREE_LIMIT)
    if content is None:
        raise MissingError(f"{remote.name}: {path} is not there")
    try:
        tree = checked_tree(content, record)
    except RejectedError as error:
        raise _rejected(remote, path, error) from None
    free = shutil.disk_usage(store.root).free
    if tree.size > free:
        raise RejectedError(f"{remote.name}: {record.step} takes {tree.size:,} bytes; the store has {free:,} left")
    done = 0
    with store.draft() as draft:
        for entry in tree.entries:
            for count in _receive(remote, record.output, entry, draft / "files" / entry.path):
                done += count
                report(Progress(done, tree.size, "bytes", "fetching"))
        published = store.publish(draft)
    if published.digest != record.output:
        # Such as on a file system that takes two names for one.
        raise RejectedError(f"{remote.name}: {record.step} cannot be stored on this file system")
    return tree


def _receive(remote: Remote, digest: str, entry: TreeEntry, place: Path) -> Iterator[int]:
    """Writes a file of a tree, and tells how many bytes each block has."""
    place.parent.mkdir(parents=True, exist_ok=True)
    path = f"{object_path(digest)}/files/{entry.path}"
    found = hashlib.sha256()
    with place.open("xb") as file:
        for block in remote.files.blocks(path, entry.size):
            found.update(block)
            file.write(block)
            yield len(block)
    if found.hexdigest() != entry.sha256:
        raise _rejected(remote, path, RejectedError("its content does not match its digest"))


# -- paths ------------------------------------------------------------------------------------------------------------


def object_path(digest: str) -> str:
    """Returns the path of a tree in a remote."""
    return _NAMES.object(digest).as_posix()


def action_path(key: str) -> str:
    """Returns the path of an action's record in a remote."""
    return _NAMES.action(key).as_posix()


def _rejected(remote: Remote, path: str, reason: RejectedError) -> RejectedError:
    return RejectedError(f"{remote.name}: {path} was rejected: {reason.message}")
