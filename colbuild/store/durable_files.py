"""Writes files so that a crash leaves the old or the new content, and explains errors of the disk."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from colbuild.documents import read_json_file, shallow
from colbuild.errors import BuildError, system_reason
from colbuild.hashing import escaped_json, hash_bytes
from colbuild.store.locks import NOT_ALLOWED, scratch_file

CHECK = "check"
"""The key under which JSON values carry a check."""

_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_KEPT = "then run the build again, which keeps finished steps"


class NotWritableError(BuildError):
    """A place may only be read."""


def storage_error(error: OSError, path: Path) -> BuildError:
    """Returns the error of the disk at `path`, for the user."""
    place = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else path
    if error.errno in _DISK_FULL:
        message = f"the disk is full: cannot write {place} ({_free(path)} free)"
        return BuildError(message, hint=f"free some space, or move the store with --store or COLBUILD_STORE; {_KEPT}")
    if error.errno == errno.EFBIG:
        message = f"a limit on the size of files is reached: cannot write {place} ({_free(path)} free on the disk)"
        return BuildError(message, hint=f"raise the limit (see 'ulimit -f'); {_KEPT}")
    if error.errno in NOT_ALLOWED:
        message = f"cannot write {place}: {system_reason(error)}"
        return NotWritableError(message, hint="check who owns it, or use another store with --store or COLBUILD_STORE")
    hint = "build again, and check whether another process removes the folder" if error.errno == errno.ENOENT else None
    return BuildError(f"cannot use {place}: {system_reason(error)}", hint=hint)


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into a BuildError that names `path` (or the file that the error names)."""
    try:
        yield
    except BrokenPipeError:
        # The reader of our output went away; that is no disk's fault.
        raise
    except OSError as error:
        raise storage_error(error, path) from error


def _free(path: Path) -> str:
    for place in (path, *path.parents):
        if place.exists():
            return f"{shutil.disk_usage(place).free / 1e6:,.1f} MB"
    return "unknown space"


def safe_name(name: str) -> str:
    """A file name for any text, different for different texts."""
    return quote(name, safe=" ")


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder survive a power loss."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def seal_tree(root: Path) -> None:
    """Makes a tree durable and its files read-only. Folders stay writable, so that `rm -rf` clears a store away."""
    for folder, _, names in os.walk(root, topdown=False):
        for name in names:
            path = Path(folder, name)
            path.chmod(0o444)
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync_folder(Path(folder))


def read_json(path: Path) -> Any | None:
    """A JSON file's value; None if it is missing, unreadable or damaged, which all mean that it must be made again.

    Values are no deeper than `JSON_DEPTH`: whoever goes through them need not fear for the stack.
    """
    try:
        return shallow(read_json_file(path))
    except (OSError, ValueError):
        # A value error that is not of the content: a path that cannot be one.
        return None


def write_json(scratch: Path, path: Path, value: Any) -> None:
    """Puts a JSON value at `path` by renaming a file from the folder `scratch`. A power loss may lose or empty it."""
    with scratch_file(scratch) as (draft, descriptor):
        _write(descriptor, dump_json(value))
        _replace(draft, path)


def write_json_durably(scratch: Path, path: Path, value: Any) -> None:
    """Like `write_json`, and a power loss leaves the old value or the new one."""
    with scratch_file(scratch) as (draft, descriptor):
        _write(descriptor, dump_json(value))
        os.fsync(descriptor)
        _replace(draft, path)
        sync_folder(path.parent)
        sync_folder(path.parent.parent)


def _write(descriptor: int, data: bytes) -> None:
    with open(descriptor, "wb", buffering=0, closefd=False) as file:
        content = memoryview(data)
        while content:
            content = content[file.write(content) :]


def _replace(draft: Path, path: Path) -> None:
    try:
        draft.replace(path)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.replace(path)


def checksum(value: Any) -> str:
    """Returns the checksum of a JSON value, for a later comparison."""
    return hash_bytes(escaped_json(value))


def checked(value: Mapping[str, Any]) -> dict[str, Any]:
    """JSON values with a check on them: a digest in which one digit has changed is a digest all the same."""
    return {**value, CHECK: checksum(value)}


def unchecked(value: Any) -> dict[str, Any] | None:
    """The values behind `checked` ones; None if they are not what was written."""
    if not isinstance(value, dict):
        return None
    values = {key: part for key, part in value.items() if key != CHECK}
    return values if value.get(CHECK) == checksum(values) else None


def dump_json(value: Any) -> bytes:
    """A JSON value as the store and its remotes spell it."""
    return (json.dumps(value, sort_keys=True, indent=1) + "\n").encode("utf-8")
