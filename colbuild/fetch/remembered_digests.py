"""Digests of files on this machine, remembered as git's index does: until size, times or inode of a file change."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from colbuild.hashing import hash_bytes, hash_file
from colbuild.store.durable_files import checked, read_json, unchecked, write_json

_SETTLED_NS = 2_000_000_000
"""A file changed twice within a clock tick looks unchanged, so only what was left alone this long is remembered."""


def remembered_hash(path: Path, downloads: Path) -> str:
    """The sha256 of a file's content, from memory if the file has not been touched since.

    Nothing is remembered while `downloads` does not exist, so that looking leaves no trace in a project never built.

    Raises:
        OSError: The file cannot be read.
    """
    name = hash_bytes(os.fsencode(path.absolute()))
    memory = downloads / "hashes" / name[:2] / f"{name}.json"
    seen = _signature(path.stat())
    # With a check: a digest that lost a digit would go into keys and the lock. Older notes have none, and are made anew.
    known = unchecked(read_json(memory))
    if known is not None and known.get("signature") == seen and isinstance(known.get("sha256"), str):
        return str(known["sha256"])
    digest = hash_file(path)
    status = path.stat()
    settled = time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > _SETTLED_NS
    if settled and _signature(status) == seen and downloads.is_dir():
        # Forgetting costs a second look; failing to remember must not fail a plan.
        with suppress(OSError):
            memory.parent.mkdir(parents=True, exist_ok=True)
            write_json(memory.parent, memory, checked({"signature": seen, "sha256": digest}))
    return digest


def _signature(status: os.stat_result) -> list[int]:
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev]
