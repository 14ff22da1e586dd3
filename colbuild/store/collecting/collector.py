"""The collector: finds unused results, and removes them on request.

Needed is what a root lists (`colbuild.store.collecting.roots`), what is pinned, and what is leased
(`colbuild.store.leases`). Where the project of a root is nowhere to be found, the collector refuses, unless it was last
seen long ago or may be forgotten. Builds may run meanwhile: what they make is in drafts or leased, what they find they
claim. Garbage is moved to the store's `tmp` while no build can claim it, and deleted afterwards; if that is interrupted,
the next build clears the rest away.

Action records stay although their results go: they are small, and tell what a run is going to take.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

from colbuild.errors import BuildError
from colbuild.store.collecting.disk_use import Links, changed_at, newest_in, size_of
from colbuild.store.collecting.pins import read_pins
from colbuild.store.collecting.roots import Noted, Root, Standing, note_sighting, read_roots
from colbuild.store.durable_files import storage_errors
from colbuild.store.layout import download_name
from colbuild.store.leases import LEASE, alone, is_held, is_leased, used_at
from colbuild.store.locks import hold, scratch_path
from colbuild.store.store import Store
from colbuild.units import format_duration

_DAY: Final = 24 * 3600.0


class Kind(StrEnum):
    """What can be garbage."""

    OBJECT = "object"
    DOWNLOAD = "download"
    PARTIAL = "partial"
    QUARANTINE = "quarantine"
    COMPILED = "compiled"
    RUN = "run"
    LOG = "log"


@dataclass(frozen=True)
class Policy:
    """How long what nobody needs is kept.

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
    """What a collection found.

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


def collect(store: Store, policy: Policy = Policy(), *, delete: bool = False, now: float | None = None) -> Collected:
    """Finds what nobody needs in a store; removes it if `delete` says so.

    Args:
        store: The store, which need not exist.
        policy: How long what nobody needs is kept.
        delete: Without it nothing is written.
        now: The time, in seconds since 1970.

    Raises:
        BuildError: A root is damaged, or its project cannot be found; results would go though no build has noted yet what it
            needs; a build runs and the lease is shorter than usual; the disk refuses.
    """
    moment = time.time() if now is None else now
    with storage_errors(store.root):
        if not delete:
            return _survey(store, policy, moment)
        if not store.root.exists():
            return Collected((), (), (), 0, 0, removed=True, rootless=False)
        store.prepare()
        with scratch_path(store.layout.folder("tmp")) as trash:
            trash.mkdir()
            with alone(store.layout):
                found = _survey(store, policy, moment)
                running = [path.stem for path in _runs_of(store) if is_held(path)]
                if running and policy.lease < LEASE:
                    raise BuildError(
                        f"a build is running ({', '.join(running)}), and only the lease keeps its results",
                        hint="wait for its end, or do not shorten the lease",
                    )
                if found.rootless:
                    raise BuildError(
                        f"no build has recorded its results in {store.root} yet: everything would be removed",
                        hint="run 'colbuild build' in each project that uses this store (quick if nothing has changed); "
                        "if no project uses it, remove the folder",
                    )
                noted = read_roots(store)
                for one in noted:
                    if one.standing is Standing.LIVES:
                        note_sighting(store, one, moment)
                if found.lost:
                    raise _lost_error(found.lost, moment)
                gone = tuple(item for item in found.garbage if _move(store, item, trash))
                for one in noted:
                    if _is_over(one, policy, moment):
                        one.path.unlink(missing_ok=True)
        return replace(found, garbage=gone, removed=True)


def _lost_error(lost: Sequence[Noted], now: float) -> BuildError:
    told = "\n".join(
        f"  {one.root.family}: {one.root.lock}, last seen {format_duration(max(0.0, now - one.last_seen))} ago"
        for one in lost
    )
    one = len(lost) == 1
    return BuildError(
        f"{'a project' if one else f'{len(lost)} projects'} that this store keeps results for cannot be found:\n{told}",
        hint="run 'colbuild build' in a project that was moved, or mount the disk of a missing one; "
        f"'colbuild cache gc --delete --forget' removes what only {'it needs' if one else 'they need'}",
    )


@dataclass(frozen=True)
class _Marks:
    """What is needed: digests of objects and names of downloads."""

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


def _is_over(noted: Noted, policy: Policy, now: float) -> bool:
    """Whether a root keeps nothing any more. One that was seen in the future is fresh: the clock was set back since."""
    if noted.standing is Standing.LOST:
        return not is_leased(noted.last_seen, now, policy.lost)
    return noted.standing is Standing.ENDED


def _is_lost(store: Store, noted: Noted, marks: _Marks) -> bool:
    """Whether the project of a root cannot be found, though something in the store is kept by no other `marks`."""
    if noted.standing is not Standing.LOST:
        return False
    own = _marks([noted.root])
    return any(store.layout.object(digest).exists() for digest in own.objects - marks.objects) or any(
        (store.downloads / name / "content").exists() for name in own.downloads - marks.downloads
    )


def _survey(store: Store, policy: Policy, now: float) -> Collected:
    roots = read_roots(store)
    marks = _marks(noted.root for noted in roots if noted.standing is Standing.LIVES)
    marks |= _Marks({pin.digest for pin in read_pins(store)}, frozenset())
    staying = [noted for noted in roots if not _is_over(noted, policy, now)]
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
    ended = tuple(noted.root for noted in roots if _is_over(noted, policy, now))
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


def _runs_of(store: Store) -> list[Path]:
    return [path for path in _entries(store, "runs") if path.suffix == ".jsonl"]


def _runs(store: Store, policy: Policy, now: float) -> list[Path]:
    """Records of builds that may go, oldest first: their names begin with their time."""
    paths = _runs_of(store)
    old = paths[: -policy.runs] if policy.runs else paths
    return [path for path in old if not is_leased(changed_at(path), now, policy.history) and not is_held(path)]


def _logs(store: Store, gone: Collection[str], policy: Policy, now: float) -> Iterator[Path]:
    """Logs that may go: those of a build stay with its record. `gone` are the builds whose records go."""
    stay = {path.stem for path in _runs_of(store)} - set(gone)
    for path in _entries(store, "logs"):
        if path.name in gone or (path.name not in stay and not is_leased(newest_in(path), now, policy.history)):
            yield path


def _entries(store: Store, folder: str) -> list[Path]:
    place = store.layout.folder(folder)
    return sorted(place.iterdir()) if place.is_dir() else []


# -- removing ---------------------------------------------------------------------------------------------------------


class _BusyError(Exception):
    """Somebody holds the lock."""


def _busy() -> None:
    raise _BusyError


def _lock_of(store: Store, item: Garbage) -> Path | None:
    """The lock under which a build works at this place."""
    if item.kind is Kind.PARTIAL:
        return store.layout.lock(item.name)
    return item.path.parent.with_suffix(".lock") if item.kind is Kind.DOWNLOAD else None


def _move(store: Store, item: Garbage, trash: Path) -> bool:
    """Moves garbage out of everybody's way, unless somebody works on it; says whether it did."""
    lock = _lock_of(store, item)
    target = trash / f"{item.kind}-{item.name}-{item.path.name}"
    try:
        if lock is None:
            return _rename(item.path, target)
        with hold(lock, _busy):
            return _rename(item.path, target)
    except _BusyError:
        return False


def _rename(path: Path, target: Path) -> bool:
    try:
        path.rename(target)
    except FileNotFoundError:
        return False
    return True
