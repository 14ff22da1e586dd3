"""The folder of fetched sources, and the record that pins each to the digest of its first fetch.

::

    downloads/
      <sha256 of the URI>/record.json     what it was: digest, files, where it came from
      <sha256 of the URI>/content/<name>  the file or folder itself; may be deleted at any time
      <sha256 of the URI>/partial/        a fetch that is under way, or was killed
      <sha256 of the URI>.lock            held by whoever fetches it
      hashes/                             remembered digests of files on this machine
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from colbuild.bounds import SILENT_SECONDS
from colbuild.errors import SourceUnavailableError, StoppedError
from colbuild.fetch.background import in_background
from colbuild.fetch.remembered_digests import remembered_hash
from colbuild.hashing import TreeEntry, hash_file, scan_tree, tree_digest
from colbuild.progress import Progress, Report, never
from colbuild.store.durable_files import (
    CHECK,
    checked,
    read_json,
    seal_tree,
    storage_errors,
    sync_folder,
    unchecked,
    write_json_durably,
)
from colbuild.store.layout import download_name
from colbuild.store.locks import hold, remove


@dataclass(frozen=True)
class Fetched:
    """A source that is on this disk.

    Attributes:
        path: The file or folder; read-only where colbuild fetched it.
        digest: The sha256 of a file's content; of a folder, `colbuild.hashing.tree_digest` of its files.
    """

    path: Path
    digest: str


@dataclass(frozen=True)
class Record:
    """A source's digest, size and origin at its first fetch.

    Attributes:
        uri: The source.
        digest: Of its content.
        is_folder: Whether it is a folder.
        files: The files in the folder; or the one file, under its own name.
        origin: What the place it came from calls this very content: a hub's commit, an archive's name and sha256.
    """

    uri: str
    digest: str
    is_folder: bool
    files: tuple[TreeEntry, ...]
    origin: Mapping[str, str]


@dataclass(frozen=True)
class Pin:
    """A lock's pin of a source.

    Attributes:
        digest: Of its content.
        origin: As in `Record`: the very content that is to be asked for.
        lock: What messages call the lock.
    """

    digest: str
    origin: Mapping[str, str]
    lock: str


Get = Callable[[Path, Mapping[str, str], Report], Mapping[str, str]]
"""Puts a source's file or folder at a path, in an empty folder that scratch files may use too, and returns its origin.

The second argument is the origin of an earlier fetch, so that the same content can be asked for; empty the first time.
"""


@dataclass(frozen=True)
class Download:
    """A source that has to be fetched: its URI, the name to keep it under, and how to get it."""

    uri: str
    name: str
    get: Get


_RECORD = TypeAdapter(Record)


def recorded(downloads: Path, uri: str) -> Record | None:
    """The record of an earlier fetch; None if there is none, or it is damaged."""
    return _read_record(_folder(downloads, uri), uri)


def kept(downloads: Path, uri: str, name: str) -> Path | None:
    """Returns the path of an earlier fetch's content, unchecked; None if there is none, or it was deleted.

    Args:
        downloads: Where fetched sources are kept.
        uri: The source.
        name: The name that its content is kept under.
    """
    path = _folder(downloads, uri) / "content" / name
    return path if path.exists() else None


def check_pin(uri: str, digest: str, sha256: str | None) -> None:
    """Compares a source's digest with the one that was asked for.

    Raises:
        SourceUnavailableError: They differ.
    """
    if sha256 is not None and digest != sha256:
        raise SourceUnavailableError(
            f"{uri} does not match 'sha256': its digest is {digest}, not {sha256}",
            hint="check why the content changed; to accept it, write its digest in the spec",
        )


def check_lock(uri: str, digest: str, pin: Pin | None) -> None:
    """Compares a source's digest with the one in a lock.

    Raises:
        SourceUnavailableError: They differ.
    """
    if pin is not None and digest != pin.digest:
        raise SourceUnavailableError(
            f"{uri} does not match {pin.lock}: its digest is {digest}, not {pin.digest}",
            hint=f"check why the content changed; to accept it, remove {pin.lock} and run 'colbuild lock'",
        )


def fetch_once(
    download: Download,
    *,
    downloads: Path,
    sha256: str | None,
    report: Report,
    pin: Pin | None = None,
    stopping: Callable[[], bool] = never,
) -> Fetched:
    """Fetches a source unless its content is here, intact; other processes that want the same one wait meanwhile.

    Raises:
        StoppedError: `stopping` said so.
        SourceUnavailableError: It cannot be had, or is not what it was, or not what `sha256` or a lock says.
        BuildError: The disk refuses.
    """
    place = _folder(downloads, download.uri)
    target = place / "content" / download.name

    def waiting() -> None:
        report(Progress(0, 0, "bytes", "waiting for another download"))

    def check() -> None:
        if stopping():
            raise StoppedError(f"stopped before {download.uri} was fetched")

    def get(path: Path, known: Mapping[str, str], report: Report) -> Mapping[str, str]:
        # A server may stop to answer, and a client has patience.
        watch = _Watch(download.uri, report)

        def look() -> None:
            check()
            watch.check()

        return in_background(lambda: download.get(path, known, watch.report), look)

    with storage_errors(place):
        place.mkdir(parents=True, exist_ok=True)
        with hold(place.with_suffix(".lock"), waiting, check):
            record = _read_record(place, download.uri)
            if record is not None:
                check_pin(download.uri, record.digest, sha256)
                check_lock(download.uri, record.digest, pin)
                if _is_intact(target, record, downloads):
                    return Fetched(target, record.digest)
            return Fetched(target, _fetch(replace(download, get=get), place, record, sha256, pin, report).digest)


class _Watch:
    """Gives a download up that makes no progress: names are looked up, and headers read, without any limit of time."""

    def __init__(self, uri: str, report: Report) -> None:
        self._uri, self._report = uri, report
        self._last, self._since = Progress(0, 0, ""), time.monotonic()

    def report(self, progress: Progress) -> None:
        """Passes progress on."""
        if progress != self._last:
            self._last, self._since = progress, time.monotonic()
        self._report(progress)

    def check(self) -> None:
        """Raises SourceUnavailableError if there was no progress for too long."""
        if time.monotonic() - self._since > SILENT_SECONDS:
            raise SourceUnavailableError(
                f"{self._uri} cannot be fetched: no data arrived for {SILENT_SECONDS:g} s",
                hint="check the network and try again",
            )


def _fetch(
    download: Download, place: Path, record: Record | None, sha256: str | None, pin: Pin | None, report: Report
) -> Record:
    partial = place / "partial"
    remove(partial)
    partial.mkdir()
    known = record.origin if record else pin.origin if pin else {}
    try:
        origin = download.get(partial / download.name, known, report)
        fresh = _describe(download.uri, partial / download.name, origin)
        check_pin(download.uri, fresh.digest, sha256)
        check_lock(download.uri, fresh.digest, pin)
        _check_same(record, fresh, place)
        seal_tree(partial)
        remove(place / "content")
        partial.rename(place / "content")
        sync_folder(place)
    finally:
        with suppress(OSError):
            # A download that was left behind may still write there; the next one clears it away.
            remove(partial)
        with suppress(OSError):
            # Only if nothing was fetched is the folder empty, and so removed.
            place.rmdir()
    write_json_durably(place, place / "record.json", checked(asdict(fresh)))
    return fresh


def _describe(uri: str, path: Path, origin: Mapping[str, str]) -> Record:
    if path.is_dir():
        entries = scan_tree(path)
        return Record(uri, tree_digest(entries), True, entries, origin)
    digest = hash_file(path)
    return Record(uri, digest, False, (TreeEntry(path.name, path.stat().st_size, digest),), origin)


def _check_same(record: Record | None, fresh: Record, place: Path) -> None:
    if record is not None and fresh.digest != record.digest:
        raise SourceUnavailableError(
            f"{fresh.uri} has changed since the first fetch: its digest is {fresh.digest}, not {record.digest}",
            hint=f"check why the content changed; to accept it, remove {place} and build again",
        )


def _is_intact(target: Path, record: Record, downloads: Path) -> bool:
    """Returns whether every file has its content; one that was not touched since it was last read is not read again."""
    root = target if record.is_folder else target.parent
    try:
        return all(remembered_hash(root / entry.path, downloads) == entry.sha256 for entry in record.files)
    except OSError:
        return False


def _folder(downloads: Path, uri: str) -> Path:
    return downloads / download_name(uri)


def _read_record(place: Path, uri: str) -> Record | None:
    value: Any = read_json(place / "record.json")
    if isinstance(value, dict) and CHECK in value:
        # Older records have no check; their digests add up, and the origin alone is believed.
        value = unchecked(value)
    try:
        record = _RECORD.validate_python(value)
    except ValidationError:
        return None
    return record if record.uri == uri and record.digest == _digest(record) else None


def _digest(record: Record) -> str | None:
    """What a record's files add up to, to tell a damaged record."""
    if record.is_folder:
        return tree_digest(record.files)
    return record.files[0].sha256 if len(record.files) == 1 else None
