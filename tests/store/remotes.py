"""Remotes for the tests: real ones on this machine, and ones that lie, stall or break off."""

from __future__ import annotations

import hashlib
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

from colbuild.hashing import TreeEntry, tree_digest
from colbuild.store import ActionRecord, Store
from colbuild.store.remote.remote_calls import Calls
from colbuild.store.remote.remote_files import RemoteFiles
from colbuild.store.remote.remote_store import Remote, action_path, object_path
from tests.store.processes import RECORD, fill

FILES = {"model.safetensors": b"weights" * 100, "sub/config.json": b"{}", "empty": b""}


def finished(store: Store, files: dict[str, bytes] = FILES, key: str = "k") -> ActionRecord:
    """A recorded action with this result; its key is made from a word."""
    digest = fill(store, files)
    size = sum(len(content) for content in files.values())
    record = ActionRecord(key_named(key), f"distill {key}", "distill", {}, {}, digest, size, 1.5, 1.7e9)
    store.record("family", record)
    return record


def key_named(word: str) -> str:
    """A key for a word."""
    return hashlib.sha256(word.encode()).hexdigest()


def contents(store: Store, record: ActionRecord) -> dict[str, bytes]:
    """The files of a result in a store."""
    root = store.files(record.output)
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def spoil(remote: Remote, path: str, content: bytes) -> None:
    """Replaces a file of a remote."""
    remote.files.write(path, len(content), lambda: [content])


def forge(remote: Remote, rows: list[Any], **fields: Any) -> str:
    """Puts a record and a list of files that agree with each other into a remote, whatever they say; returns the key."""
    entries = [TreeEntry(row["path"], row["size"], row["sha256"]) for row in rows]
    digest = tree_digest(entries)
    size = sum(entry.size for entry in entries)
    key = key_named("forged")
    values = {**asdict(RECORD), "key": key, "output": digest, "size": size, **fields}
    spoil(remote, action_path(key), json.dumps(values).encode())
    spoil(remote, f"{object_path(digest)}/tree.json", json.dumps(rows).encode())
    return key


def row(path: str, content: bytes = b"x") -> dict[str, Any]:
    """A line of a list of files."""
    return {"path": path, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def memory_remote() -> str:
    """The URL of a fresh remote in memory."""
    return f"memory://{uuid.uuid4().hex}"


@dataclass
class Fault:
    """What goes wrong in a `FaultyFiles`: called before each reading or writing with the method and the path."""

    strike: Callable[[str, str], None] = lambda method, path: None
    calls: list[str] = field(default_factory=list)


class FaultyFiles(MemoryFileSystem):
    """Files in memory behind a line on which things go wrong."""

    cachable = False
    protocol = "memory"

    def __init__(self, fault: Fault) -> None:
        super().__init__()
        self.fault = fault

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        self._strike("cat_file", path)
        return super().cat_file(path, start=start, end=end, **options)

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        self._strike("open", path)
        return super().open(path, mode, **options)

    def _strike(self, method: str, path: str) -> None:
        self.fault.calls.append(f"{method} {path.rpartition('/')[2]}")
        self.fault.strike(method, path)


def faulty(remote: Remote, fault: Fault, timeout: float = 30.0) -> Remote:
    """The same remote in memory, over a line with a fault."""
    calls = Calls(remote.name, timeout, (0.0, 0.0))
    return Remote(RemoteFiles(calls, FaultyFiles(fault), remote.files.base))


def stalling(on: str) -> tuple[Fault, threading.Event]:
    """A fault that hangs at paths which end so, until the event is set."""
    over = threading.Event()

    def strike(_: str, path: str) -> None:
        if path.endswith(on):
            over.wait(30)

    return Fault(strike), over


@contextmanager
def s3_server() -> Iterator[str]:
    """A real S3 server on this machine; its endpoint."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def clear_connections() -> None:
    """Makes fsspec read its configuration again."""
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def until(done: Callable[[], bool], seconds: float = 10.0) -> None:
    """Waits until something is so."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)
