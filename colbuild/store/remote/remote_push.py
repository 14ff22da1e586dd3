"""Pushes results to a remote: files, then lists of files, then records; existing ones stay."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from colbuild.errors import BuildError
from colbuild.hashing import BLOCK_BYTES, TreeEntry
from colbuild.progress import Progress, Report
from colbuild.store.durable_files import dump_json
from colbuild.store.layout import FORMAT, mark_text
from colbuild.store.objects import entries_to_json, read_tree
from colbuild.store.records import ActionRecord, record_to_json
from colbuild.store.remote.remote_calls import MissingError, RejectedError, RemoteError
from colbuild.store.remote.remote_check import TREE_LIMIT
from colbuild.store.remote.remote_store import Pushed, Remote, action_path, check, look, object_path
from colbuild.store.store import Store


class _DamagedError(BuildError):
    """A result in the local store is not what its digest says."""


# -- to a remote ------------------------------------------------------------------------------------------------------


def push(remote: Remote, store: Store, records: Sequence[ActionRecord], report: Report) -> Pushed:
    """Puts results and their records where they are missing. What is there is not sent again, nor replaced.

    Any number of machines may push at once. A result that is damaged here is left out, and named.

    Raises:
        RemoteError: The remote cannot be written to.
    """
    if not check(remote):
        try:
            remote.files.create("format", mark_text(FORMAT).encode("ascii"))
        except MissingError as error:
            raise RemoteError(
                f"{remote.name} is in a bucket that does not exist", hint="create the bucket first"
            ) from error
    pushed = Pushed()
    total, before = sum(record.size for record in records), 0
    for record in records:

        def sent(count: int, before: int = before) -> None:
            report(Progress(before + count, total, "bytes", "pushing"))

        pushed = _push(remote, store, record, pushed, sent)
        before += record.size
        report(Progress(before, total, "bytes", "pushing"))
    return pushed


@dataclass
class _Meter:
    """Counts what is sent of one result."""

    tell: Callable[[int], None]
    bytes: int = 0

    def add(self, count: int) -> None:
        self.bytes += count
        self.tell(self.bytes)


def _push(remote: Remote, store: Store, record: ActionRecord, pushed: Pushed, tell: Callable[[int], None]) -> Pushed:
    theirs = _their_record(remote, record.key)
    if theirs is not None and theirs.output != record.output:
        return replace(pushed, differing=(*pushed.differing, record.step))
    meter = _Meter(tell)
    try:
        complete = _push_tree(remote, store, record.output, meter)
    except _DamagedError as error:
        return replace(pushed, damaged=(*pushed.damaged, f"{record.step}: {error.message}"))
    if complete:
        pushed = replace(pushed, skipped=pushed.skipped + 1)
    else:
        pushed = replace(pushed, objects=pushed.objects + 1, bytes=pushed.bytes + meter.bytes)
    if theirs is not None:
        return pushed
    if _put_record(remote, record):
        return replace(pushed, records=pushed.records + 1)
    theirs = _their_record(remote, record.key)
    same = theirs is not None and theirs.output == record.output
    return pushed if same else replace(pushed, differing=(*pushed.differing, record.step))


def _their_record(remote: Remote, key: str) -> ActionRecord | None:
    """The remote's record of a key; None if there is none, or what is there cannot be used by anybody."""
    try:
        return look(remote, key)
    except RejectedError:
        return None


def _put_record(remote: Remote, record: ActionRecord) -> bool:
    """Puts a record where there is none, or none that can be used; says whether it did."""
    path, data = action_path(record.key), dump_json(record_to_json(record))
    if remote.files.create(path, data):
        return True
    if _their_record(remote, record.key) is not None:
        return False
    remote.files.write(path, len(data), lambda: [data])
    return True


def _push_tree(remote: Remote, store: Store, digest: str, meter: _Meter) -> bool:
    """Puts what the remote lacks of a tree there, its list last; says whether it lacked nothing.

    A file counts as there if its size is right: whoever fetches it compares its digest.
    """
    tree = read_tree(store.layout, digest)
    if tree is None:
        raise _DamagedError("its list of files is missing or damaged")
    folder = object_path(digest)
    there = remote.files.sizes(folder)
    complete = True
    for entry in tree.entries:
        path = f"files/{entry.path}"
        if there.get(path) == entry.size:
            continue
        complete = False
        source = store.files(digest) / entry.path
        before = meter.bytes

        def content(source: Path = source, entry: TreeEntry = entry, before: int = before) -> Iterator[bytes]:
            meter.bytes = before
            return _sent(source, entry, meter)

        remote.files.write(f"{folder}/{path}", entry.size, content)
    listed = dump_json(entries_to_json(tree.entries))
    if not complete or "tree.json" not in there or remote.files.read(f"{folder}/tree.json", TREE_LIMIT) != listed:
        remote.files.write(f"{folder}/tree.json", len(listed), lambda: [listed])
        complete = False
    return complete


def _sent(source: Path, entry: TreeEntry, meter: _Meter) -> Iterator[bytes]:
    """A file's content; raises at its end, before it is complete on the other side, if it is not what it should be."""
    found, size = hashlib.sha256(), 0
    try:
        with source.open("rb", buffering=0) as file:
            while block := file.read(BLOCK_BYTES):
                found.update(block)
                size += len(block)
                if size > entry.size:
                    break
                yield block
                meter.add(len(block))
    except OSError as error:
        raise _DamagedError(f"{entry.path} cannot be read ({error.strerror})") from error
    if size != entry.size or found.hexdigest() != entry.sha256:
        raise _DamagedError(f"the content of {entry.path} has changed")
