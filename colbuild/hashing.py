"""Digests: of values, files and directory trees; every tag that stands before a value, and every spelling of JSON in a digest.

A digest is the sha256 of a tag and of one spelling of a value. The tag says what the value is, so that values of two kinds
never have the same digest. All of it is fixed for ever: other bytes would lose what every store and lock holds.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from colbuild.errors import BuildError


class Tag(StrEnum):
    """The domain of a digest."""

    ACTION = "colbuild.action.v1"  # an operation with its parameters and inputs: the key of a result
    SIGNATURE = "colbuild.signature.v1"  # a step and the signatures of its inputs, before any of them is built
    LOCK = "colbuild.lock.v1"  # the values of a family's lock
    TREE = "colbuild.tree.v1"  # the files of a directory tree
    PART = "colbuild.part.v1"  # some files of a tree


BLOCK_BYTES = 1 << 20
"""Read at a time. From 1 MiB on, hashing is as fast as it gets, some percent faster than `hashlib.file_digest`; a second
thread for the files of a tree was tried and gained 2%."""


def tagged_digest(tag: Tag, value: Any) -> str:
    """The digest of a JSON value of a kind, in lower-case hex. Raises what `canonical_json` raises."""
    return hash_bytes(_tagged(tag, canonical_json(value)))


def hash_bytes(content: bytes) -> str:
    """The sha256 of some bytes, in lower-case hex."""
    return hashlib.sha256(content).hexdigest()


def canonical_json(value: Any) -> bytes:
    """The one spelling of a JSON value: sorted keys, no spaces, UTF-8, no NaN.

    Raises:
        ValueError: The value holds a NaN or an infinity.
        TypeError: The value is not JSON.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def escaped_json(value: Any) -> bytes:
    """The spelling in checks and in digests of trees: as the canonical one, but all in ASCII, and NaN passes."""
    return _ESCAPED.encode(value).encode("ascii")


def spaced_json(value: Any) -> bytes:
    """The spelling in checks of training states and of a source's settings: as the escaped one, with spaces."""
    return _SPACED.encode(value).encode("ascii")


_ESCAPED = json.JSONEncoder(sort_keys=True, separators=(",", ":"))
_SPACED = json.JSONEncoder(sort_keys=True)


def _tagged(tag: Tag, spelt: bytes) -> bytes:
    return tag.encode("ascii") + b"\0" + spelt


@dataclass(frozen=True, order=True)
class TreeEntry:
    """One regular file of a tree.

    Attributes:
        path: Relative to the tree's root, with forward slashes.
        size: In bytes.
        sha256: Of the content, in lower-case hex.
    """

    path: str
    size: int
    sha256: str


def hash_file(path: Path) -> str:
    """The sha256 of a file's content, in lower-case hex. Raises OSError where the file cannot be read."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        # Zeroing a whole block would take longer than hashing most files does.
        block = memoryview(bytearray(min(BLOCK_BYTES, os.fstat(file.fileno()).st_size + 1)))
        while count := file.readinto(block):
            digest.update(block[:count])
    return digest.hexdigest()


def tree_digest(entries: Iterable[TreeEntry], tag: Tag = Tag.TREE) -> str:
    """The digest of a tree: the sha256 of its sorted (path, size, sha256). Modes, times and empty folders do not count.

    Args:
        entries: The files, which may be none.
        tag: Whether they are a whole tree or a part of one.
    """
    rows = [[entry.path, entry.size, entry.sha256] for entry in sorted(entries)]
    return hash_bytes(_tagged(tag, escaped_json(rows)))


def walk_files(root: Path) -> dict[str, os.stat_result]:
    """Every file below `root`: relative path -> its stat, sorted by path.

    Raises:
        BuildError: Something in it is neither a regular file nor a folder: a symbolic link could point anywhere, and a
            tree that holds one is not known by its content.
    """
    found: dict[str, os.stat_result] = {}
    pending = [(os.fspath(root), "")]
    while pending:
        folder, prefix = pending.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    pending.append((entry.path, f"{prefix}{entry.name}/"))
                elif stat.S_ISREG(status.st_mode):
                    found[prefix + entry.name] = status
                else:
                    kind = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "a special file"
                    raise BuildError(f"{entry.path} is {kind}; the store keeps only regular files and folders")
    return dict(sorted(found.items()))


def scan_tree(root: Path, hash_of: Callable[[Path], str] = hash_file) -> tuple[TreeEntry, ...]:
    """Every file below `root` with its size and digest, sorted by path. Raises what `walk_files` raises."""
    return tuple(TreeEntry(path, status.st_size, hash_of(root / path)) for path, status in walk_files(root).items())
