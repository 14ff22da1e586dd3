"""Checks data from a remote before it is used."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from colbuild.bounds import JSON_DEPTH
from colbuild.documents import MalformedError, parse_json, shallow
from colbuild.hashing import TreeEntry, tree_digest
from colbuild.store.objects import Tree
from colbuild.store.records import ActionRecord, record_from_json
from colbuild.store.remote.remote_calls import RejectedError

KeyOf = Callable[[ActionRecord], str]
"""Works out the key that a record's operation, parameters and inputs have."""

RECORD_LIMIT: Final = 1 << 20
TREE_LIMIT: Final = 16 << 20
LARGEST_TREE: Final = 1 << 44
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_NAME_BYTES: Final = 255
_PATH_BYTES: Final = 1024
_DEEPEST: Final = 32
_NAME_LETTERS: Final = 300


def checked_record(content: bytes, key: str, key_of: KeyOf | None = None) -> ActionRecord:
    """A record as it came, if it can be the one of this key.

    It ran on another machine, so it says nothing about how long it takes on this one: its `seconds` are 0, which no estimate
    counts. It was not made in the future, whatever that machine's clock says.

    Raises:
        RejectedError: It cannot; the message says why, and not from where.
    """
    record = record_from_json(_parsed(content))
    if record is None:
        raise RejectedError("it is not a record")
    if record.key != key:
        raise RejectedError("it is the record of another key")
    for name in (record.step, record.op, *record.inputs, *record.inputs.values()):
        if not name or len(name) > _NAME_LETTERS or not name.isprintable():
            raise RejectedError("it has invalid names")
    if not _DIGEST.fullmatch(record.output):
        raise RejectedError("its output is not a digest")
    if not 0 <= record.size <= LARGEST_TREE:
        raise RejectedError(f"its size of {record.size:,} bytes is impossible")
    if not (math.isfinite(record.seconds) and math.isfinite(record.built_at) and record.built_at >= 0):
        raise RejectedError("its times are invalid")
    if key_of is not None and not _has_key(record, key_of):
        raise RejectedError("its operation, parameters and inputs do not match its key")
    return replace(record, seconds=0.0, built_at=min(record.built_at, round(time.time(), 3)))


def _has_key(record: ActionRecord, key_of: KeyOf) -> bool:
    try:
        return key_of(record) == record.key
    except (KeyError, TypeError, ValueError, AttributeError):
        return False


def checked_tree(content: bytes, record: ActionRecord) -> Tree:
    """The list of files of a record's result, if it is that, and can be laid out inside one folder.

    Raises:
        RejectedError: It is not, or cannot; the message says why, and not from where.
    """
    rows = _parsed(content)
    if not isinstance(rows, list) or not rows:
        raise RejectedError("its list of files is invalid")
    entries = tuple(sorted(_entry(row) for row in rows))
    if tree_digest(entries) != record.output:
        raise RejectedError("its list of files belongs to another result")
    # Files that are also folders cannot be laid out; neither can two files with one name.
    paths = [entry.path for entry in entries]
    folders = {path[:place] for path in paths for place, letter in enumerate(path) if letter == "/"}
    if len(set(paths)) < len(paths) or not folders.isdisjoint(paths):
        raise RejectedError("its list of files has one path twice")
    tree = Tree(record.output, entries)
    if tree.size != record.size:
        raise RejectedError(f"its files have {tree.size:,} bytes; its record says {record.size:,}")
    return tree


def _entry(row: Any) -> TreeEntry:
    if not isinstance(row, dict) or row.keys() != {"path", "size", "sha256"}:
        raise RejectedError("its list of files is invalid")
    path, size, sha256 = row["path"], row["size"], row["sha256"]
    if not isinstance(path, str) or not is_confined(path):
        raise RejectedError(f"its list of files has a forbidden path: {ascii(path)[:80]}")
    if type(size) is not int or not 0 <= size <= LARGEST_TREE:
        raise RejectedError(f"its list of files has an impossible size: {ascii(size)[:80]}")
    if not isinstance(sha256, str) or not _DIGEST.fullmatch(sha256):
        raise RejectedError("its list of files has an invalid digest")
    return TreeEntry(path, size, sha256)


def is_confined(path: str) -> bool:
    """Returns whether a path stays inside the folder that it is put into, on every system, and is one that a file can have."""
    if not path.isprintable() or any(letter in path for letter in "\\:"):
        return False
    try:
        lengths = [len(part.encode("utf-8")) for part in path.split("/")]
    except UnicodeEncodeError:
        return False
    if len(lengths) > _DEEPEST or sum(lengths) > _PATH_BYTES or max(lengths) > _NAME_BYTES:
        return False
    return all(part not in ("", ".", "..") for part in path.split("/"))


def _parsed(content: bytes) -> Any:
    try:
        value = parse_json(content)
    except MalformedError:
        raise RejectedError("it is not JSON") from None
    try:
        # What is parsed can be too deep for what is done with it: copied, written, hashed.
        return shallow(value, JSON_DEPTH - 1)
    except MalformedError:
        raise RejectedError(f"it is nested deeper than {JSON_DEPTH}, the limit") from None
