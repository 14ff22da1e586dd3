"""Finds unused results in a store, without removing them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Set
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from colbuild.store.collecting.disk_use import Links, changed_at, newest_in, size_of
from colbuild.store.collecting.pins import read_pins
from colbuild.store.collecting.root_files import Root
from colbuild.store.collecting.roots import Noted, Standing, read_roots
from colbuild.store.layout import download_name
from colbuild.store.leases import LEASE, is_held, is_leased, used_at
from colbuild.store.store import Store

_DAY: Final = 24 * 3600.0


class Kind(StrEnum):
    """The kinds of garbage."""

    OBJECT = "object"
    DOWNLOAD = "download"
    PARTIAL = "partial"
    QUARANTINE = "quarantine"
    COMPILED = "compiled"
    RUN = "run"
    LOG = "log"


@dataclass(frozen=True)
class Policy:
    """The times for which unused results are kept.

    Attributes:
        lease: Seconds for which a result, a download or a damaged result stays after it was last used.
        history: Seconds for which records and logs of builds stay, what an interrupted step could go on from, and what
            compilers made, since anything was added to it.
        runs: So many of the latest builds' records stay however old they are.
        lost: Seconds since a project was last seen for which its results stay though it cannot be found.
    """

    lease: float = LEASE
    history: float = 14 * _DAY
    runs: int = 20
    lost: float = 30 * _DAY


DEFAULTS: Final = Policy()


@dataclass(frozen=True)
class Garbage:
    """Something that nobody needs.

    Attributes:
        kind: What it is.
        name: An object's digest, a download's folder, an action's key, a run's id.
        path: Where it lies.
        size: The bytes in its files.
        freed: The bytes that removing all garbage gives back of these; files that `out/` shares by hard links give none.
    """

    kind: Kind
    name: str
    path: Path
    size: int
    freed: int


@dataclass(frozen=True)
class Collected:
    """The result of a collection.

    Attributes:
        garbage: What nobody needs, by kind and name.
        ended: Roots whose lock is gone, and those of projects that were lost for long, or are to be forgotten.
        lost: Roots of projects that cannot be found, and for which alone something is kept.
        kept: How many objects stay.
        kept_size: The bytes in their files.
        removed: Whether the garbage was removed.
        rootless: Whether no build has noted yet what it needs, so that nothing is going to be removed.
    """

    garbage: tuple[Garbage, ...]
    ended: tuple[Root, ...]
    lost: tuple[Noted, ...]
    kept: int
    kept_size: int
    removed: bool
    rootless: bool

    @property
    def size(self) -> int:
        """The bytes in all garbage."""
        return sum(item.size for item in self.garbage)

    @property
    def freed(self) -> int:
        """The bytes that the disk gets back."""
        return sum(item.freed for item in self.garbage)


@dataclass(frozen=True)
class _Marks:
    """The needed results: digests of objects and names of downloads."""

    objects: Set[str]
    downloads: Set[str]

    def __or__(self, other: _Marks) -> _Marks:
        return _Marks(self.objects | other.objects, self.downloads | other.downloads)


def _marks(roots: Iterable[Root]) -> _Marks:
    results, sources = set(), set()
    for root in roots:
        results |= {result.output for result in root.results}
        sources |= {download_name(uri) for uri in root.sources}
    return _Marks(results, sources)


def is_over(noted: Noted, policy: Policy, now: float) -> bool:
    """Returns whether a root keeps nothing any more. One that was seen in the future is fresh: the clock was set back since."""
    if noted.standing is Standing.LOST:
        return not is_leased(noted.last_seen, now, policy.lost)
    return noted.standing is Standing.ENDED


def _is_lost(store: Store, noted: Noted, marks: _Marks) -> bool:
    """Returns whether the project of a root cannot be found, though something in the store is kept by no other `marks`."""
    if noted.standing is not Standing.LOST:
        return False
    own = _marks([noted.root])
    return any(store.layout.object(digest).exists() for digest in own.objects - marks.objects) or any(
        (store.downloads / name / "content").exists() for name in own.downloads - marks.downloads
    )


def survey(store: Store, policy: Policy, now: float) -> Collected:
    """Finds what nobody needs; nothing is written. Raises BuildError if a root is damaged."""
    roots = read_roots(store)
    marks = _marks(noted.root for noted in roots if noted.standing is Standing.LIVES)
    marks |= _Marks({pin.digest for pin in read_pins(store)}, frozenset())
    staying = [noted for noted in roots if not is_over(noted, policy, now)]
    lost = tuple(noted for noted in staying if _is_lost(store, noted, marks))
    marks |= _marks(noted.root for noted in staying)
    found: list[tuple[Kind, str, Path]] = []
    kept: list[Path] = []
    for path in sorted(store.layout.folder("objects").glob("*/*")):
        if _is_needed_object(store, path, marks, policy, now):
            kept.append(path)
        else:
            found.append((Kind.OBJECT, path.name, path))
    found += [(Kind.DOWNLOAD, path.parent.name, path) for path in _downloads(store, marks, policy, now)]
    found += [(Kind.PARTIAL, path.name, path) for path in _older(store, "partial", policy.history, now)]
    found += [(Kind.QUARANTINE, path.name, path) for path in _older(store, "quarantine", policy.lease, now)]
    found += [(Kind.COMPILED, path.name, path) for path in _compiled(store, policy, now)]
    runs = _runs(store, policy, now)
    found += [(Kind.RUN, path.stem, path) for path in runs]
    found += [(Kind.LOG, path.stem, path) for path in _logs(store, {path.stem for path in runs}, policy, now)]
    links = Links()
    for _, _, path in found:
        links.add(path)
    garbage = tuple(Garbage(kind, name, path, *links.sizes(path)) for kind, name, path in found)
    ended = tuple(noted.root for noted in roots if is_over(noted, policy, now))
    rootless = not roots and any(item.kind in (Kind.OBJECT, Kind.DOWNLOAD) for item in garbage)
    size = sum(size_of(path) for path in kept)
    return Collected(garbage, ended, lost, len(kept), size, removed=False, rootless=rootless)


def _is_needed_object(store: Store, path: Path, marks: _Marks, policy: Policy, now: float) -> bool:
    if path.name in marks.objects:
        return True
    try:
        return is_leased(used_at(store.layout, path.name), now, policy.lease)
    except FileNotFoundError:
        return False


def _downloads(store: Store, marks: _Marks, policy: Policy, now: float) -> Iterator[Path]:
    """Contents of sources that nobody needs, and what killed fetches left. What a source was, its record, stays."""
    for path in sorted([*store.downloads.glob("*/content"), *store.downloads.glob("*/partial")]):
        needed = path.name == "content" and path.parent.name in marks.downloads
        if not needed and not is_leased(max(changed_at(path.parent), newest_in(path)), now, policy.lease):
            yield path


def _older(store: Store, folder: str, age: float, now: float) -> Iterator[Path]:
    for path in _entries(store, folder):
        if not is_leased(newest_in(path), now, age):
            yield path


def _compiled(store: Store, policy: Policy, now: float) -> Iterator[Path]:
    """What compilers made, if nothing was added lately. As a whole: its parts refer to each other."""
    place = store.layout.folder("compiled")
    if _entries(store, "compiled") and not is_leased(newest_in(place), now, policy.history):
        yield place


def runs_of(store: Store) -> list[Path]:
    """The records of builds, oldest first."""
    return [path for path in _entries(store, "runs") if path.suffix == ".jsonl"]


def _runs(store: Store, policy: Policy, now: float) -> list[Path]:
    """Records of builds that may go, oldest first: their names begin with their time."""
    paths = runs_of(store)
    old = paths[: -policy.runs] if policy.runs else paths
    return [path for path in old if not is_leased(changed_at(path), now, policy.history) and not is_held(path)]


def _logs(store: Store, gone: Collection[str], policy: Policy, now: float) -> Iterator[Path]:
    """Logs that may go: those of a build stay with its record. `gone` are the builds whose records go."""
    stay = {path.stem for path in runs_of(store)} - set(gone)
    for path in _entries(store, "logs"):
        if path.name in gone or (path.name not in stay and not is_leased(newest_in(path), now, policy.history)):
            yield path


def _entries(store: Store, folder: str) -> list[Path]:
    place = store.layout.folder(folder)
    return sorted(place.iterdir()) if place.is_dir() else []
