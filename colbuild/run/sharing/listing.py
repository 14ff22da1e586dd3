"""Lists the contents of a store, and the locks and pins that need them."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from colbuild.fetch.downloads import Record, recorded
from colbuild.store import Store
from colbuild.store.collecting.disk_use import changed_at, newest_in, size_of, stats_in
from colbuild.store.collecting.pins import Pin, read_pins
from colbuild.store.collecting.root_files import Root
from colbuild.store.collecting.roots import Noted, Standing, read_roots
from colbuild.store.durable_files import read_json
from colbuild.store.layout import download_name
from colbuild.store.leases import LEASE, is_leased, used_at
from colbuild.store.objects import published
from colbuild.store.records import record_from_json


@dataclass(frozen=True)
class StoredObject:
    """A result in the store.

    Attributes:
        digest: Of its tree.
        size: The bytes in its files.
        shared: How many of these are in `out/` too, as other names of the same files.
        steps: Ids of the steps that made it or found it; several where they make the same bytes.
        families: The families whose steps these are.
        built_at: When it was made, in seconds since 1970; None if no record tells.
        used_at: When it was published or last used by a build.
        locks: The lock files whose last build needs it.
        pin: What it is pinned as; None if it is not.
        leased: Whether it was used so lately that it stays in any case.
    """

    digest: str
    size: int
    shared: int
    steps: tuple[str, ...]
    families: tuple[str, ...]
    built_at: float | None
    used_at: float
    locks: tuple[str, ...]
    pin: str | None
    leased: bool

    @property
    def stays(self) -> bool:
        """Whether the collector leaves it."""
        return bool(self.locks) or self.pin is not None or self.leased


@dataclass(frozen=True)
class StoredDownload:
    """A source that was fetched.

    Attributes:
        name: Of its folder in the store.
        uri: Where it came from; empty if no record tells.
        size: The bytes kept of it.
        locks: The lock files whose last build needs it.
        leased: Whether it was fetched so lately that it stays in any case.
    """

    name: str
    uri: str
    size: int
    locks: tuple[str, ...]
    leased: bool


@dataclass(frozen=True)
class Listing:
    """All that takes space in a store.

    Attributes:
        root: Where the store lies.
        exists: Whether there is one.
        objects: The results, the largest first.
        downloads: The sources that were fetched, the largest first.
        interrupted: The bytes that interrupted steps can go on from.
        quarantined: The bytes in results that were found damaged.
        compiled: The bytes in what compilers made.
        missing: Pins whose result is not in the store.
        ended: Locks that were built here and are gone.
        lost: Locks of projects that cannot be found.
    """

    root: Path
    exists: bool
    objects: tuple[StoredObject, ...] = ()
    downloads: tuple[StoredDownload, ...] = ()
    interrupted: int = 0
    quarantined: int = 0
    compiled: int = 0
    missing: tuple[Pin, ...] = ()
    ended: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()


def list_store(store: Store, now: float | None = None) -> Listing:
    """Lists everything that takes space in a store, which need not exist.

    Raises:
        BuildError: A root is damaged.
    """
    if not store.root.exists():
        return Listing(store.root, exists=False)
    moment = time.time() if now is None else now
    noted, pins = read_roots(store), {held.digest: held for held in read_pins(store)}
    staying = [one.root for one in noted if one.standing is not Standing.ENDED]
    made = makers(store, noted)
    locks: dict[str, set[str]] = defaultdict(set)
    for root in staying:
        for result in root.results:
            locks[result.output].add(root.lock)
    objects = []
    for digest in published(store.layout):
        try:
            used = used_at(store.layout, digest)
        except FileNotFoundError:
            continue
        files = list(stats_in(store.files(digest)))
        maker = made.get(digest, Maker())
        held = pins.get(digest)
        objects.append(
            StoredObject(
                digest,
                sum(status.st_size for status in files),
                sum(status.st_size for status in files if status.st_nlink > 1),
                tuple(sorted(maker.steps)),
                tuple(sorted(maker.families)),
                maker.built_at,
                used,
                tuple(sorted(locks[digest])),
                held.name if held is not None else None,
                is_leased(used, moment, LEASE),
            )
        )
    present = {stored.digest for stored in objects}
    return Listing(
        store.root,
        exists=True,
        objects=tuple(sorted(objects, key=lambda stored: (-stored.size, stored.digest))),
        downloads=_downloads(store, staying, moment),
        interrupted=size_of(store.layout.folder("partial")),
        quarantined=size_of(store.layout.folder("quarantine")),
        compiled=size_of(store.layout.folder("compiled")),
        missing=tuple(held for held in pins.values() if held.digest not in present),
        ended=tuple(one.root.lock for one in noted if one.standing is Standing.ENDED),
        lost=tuple(one.root.lock for one in noted if one.standing is Standing.LOST),
    )


@dataclass
class Maker:
    """The known origin of a result: the steps that make it, their families, and the time of its first build."""

    steps: set[str] = field(default_factory=set)
    families: set[str] = field(default_factory=set)
    built_at: float | None = None


def makers(store: Store, roots: Iterable[Noted]) -> Mapping[str, Maker]:
    """Digest -> the steps and families that made it, as action records, notes of steps and roots tell."""
    found: dict[str, Maker] = defaultdict(Maker)
    for record in store.records():
        maker = found[record.output]
        maker.steps.add(record.step)
        maker.built_at = record.built_at if maker.built_at is None else min(maker.built_at, record.built_at)
    for path in sorted(store.layout.folder("steps").glob("*/*.json")):
        last = record_from_json(read_json(path))
        if last is not None:
            found[last.output].steps.add(last.step)
            found[last.output].families.add(unquote(path.parent.name))
    for noted in roots:
        for result in noted.root.results:
            found[result.output].steps.add(result.step)
            found[result.output].families.add(noted.root.family)
    return found


def fetched_contents(store: Store) -> Iterator[tuple[Path, Record | None]]:
    """Every folder of a download whose content is here, with the record of what it was."""
    for content in sorted(store.downloads.glob("*/content")):
        value = read_json(content.parent / "record.json")
        uri = value.get("uri") if isinstance(value, dict) else None
        record = recorded(store.downloads, uri) if isinstance(uri, str) else None
        yield content, record if record is not None and download_name(record.uri) == content.parent.name else None


def _downloads(store: Store, staying: Sequence[Root], now: float) -> tuple[StoredDownload, ...]:
    needed: dict[str, set[str]] = defaultdict(set)
    for root in staying:
        for uri in root.sources:
            needed[uri].add(root.lock)
    found = []
    for content, record in fetched_contents(store):
        uri = record.uri if record is not None else ""
        fetched = max(changed_at(content.parent), newest_in(content))
        locks = tuple(sorted(needed.get(uri, ())))
        leased = is_leased(fetched, now, LEASE)
        found.append(StoredDownload(content.parent.name, uri, size_of(content), locks, leased))
    return tuple(sorted(found, key=lambda download: (-download.size, download.uri)))
