"""Roots: the results that each lock needs, for the collector.

A root belongs to one lock file of one project. Where no lock could be written, the spec stands for it. A root *lives* as long
as its lock is there, *ends* when the project is there without the lock, and is *lost* when the project is nowhere to be found:
it was removed, or moved, or its disk is not mounted. These cases look the same, so the collector asks.

A project is looked for in the folder that the store lies in (the two are moved together), then in each folder where it was
seen. A folder with the id of another project is not it; see `colbuild.store.collecting.projects`.

While a build runs, what it makes and finds joins what the last build of the same lock needed; only when it is done does the
rest go. So neither an interrupted build nor a change that is taken back costs what was built before.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

from colbuild.errors import BuildError
from colbuild.store.collecting.projects import make_project_id, project_id, same_folder
from colbuild.store.collecting.root_files import Needed, Root, Sighting, read_root, root_path, root_paths
from colbuild.store.durable_files import checked, storage_errors, write_json_durably
from colbuild.store.leases import shared
from colbuild.store.locks import hold
from colbuild.store.records import ActionRecord
from colbuild.store.store import Store

_DAY: Final = 24 * 3600.0
_PLACES: Final = 4
"""Folders in which a project was seen that a root remembers."""


class Standing(StrEnum):
    """The state of a root's lock: present; missing in a present project; in a missing project."""

    LIVES = "lives"
    ENDED = "ended"
    LOST = "lost"


@dataclass(frozen=True)
class Noted:
    """A root of a store.

    Attributes:
        path: Its file.
        root: What it needs; where its project was found, with the paths that lead there.
        folder: The project's folder that these paths lead into.
        standing: What became of its lock.
        last_seen: When its project was last seen by a build or a collection, in seconds since 1970.
    """

    path: Path
    root: Root
    folder: Path
    standing: Standing
    last_seen: float


def note_root(
    store: Store,
    *,
    lock: Path,
    spec: Path,
    family: str,
    records: Mapping[str, ActionRecord],
    sources: Collection[str],
    steps: Collection[str] | None = None,
    project: Path | None = None,
) -> bool:
    """Notes what a lock that is built here needs; returns whether that changed the root.

    Args:
        store: The store it is built in, prepared.
        lock: The family's lock file.
        spec: The family's file.
        family: Its name.
        records: Step id -> the result that is published or was claimed; some steps' or all.
        sources: The URIs that the family reads.
        steps: Given when a build is done: the ids of all steps of the family, of those too that the build left out. What
            older builds needed goes then, except for results of steps that this build left out. None while a build runs:
            nothing goes.
        project: The project's folder; by default the lock's.

    Raises:
        BuildError: The disk refuses.
    """
    lock, spec = lock.absolute(), spec.absolute()
    folder = lock.parent if project is None else project.absolute()
    fresh = {Needed(step, record.key, record.output) for step, record in records.items()}
    with storage_errors(store.layout.folder("roots")):
        identity = project_id(folder)
        path = root_path(store, identity, lock)
        now = Root(str(lock), str(spec), family, "", (), (), identity, (), _beside(store, folder))
        before = read_root(path)
        if before is not None and before == _updated([before], now, folder, fresh, sources, steps):
            # A build with nothing to do writes nothing, so it works on a store that it may only read.
            return False
        # Two builds of one lock at once: neither forgets what the other noted.
        with hold(store.layout.lock("roots")), shared(store.layout):
            if os.access(store.layout.folder("roots"), os.W_OK):
                now = replace(now, project=make_project_id(folder))
            path = root_path(store, now.project, lock)
            earlier = dict(_earlier(store, path, now, folder))
            own = [earlier[path]] if path in earlier else []
            others = [root for place, root in earlier.items() if place != path]
            root = _updated(own + others, now, folder, fresh, sources, steps)
            if earlier == {path: root}:
                return False
            write_json_durably(store.layout.folder("tmp"), path, checked(asdict(root)))
            for other in earlier.keys() - {path}:
                other.unlink(missing_ok=True)
    return True


def read_roots(store: Store) -> tuple[Noted, ...]:
    """Every root of a store, those included that live no longer.

    Raises:
        BuildError: One cannot be read, so that nobody can tell what it needs.
    """
    found = []
    for path in root_paths(store):
        root = read_root(path)
        if root is None and path.exists():
            raise BuildError(
                f"{path} is damaged: the results that it keeps are unknown",
                hint="run 'colbuild build' in each project that uses this store, which writes the file again; "
                "if it is still damaged then, its project is gone: remove the file",
            )
        if root is not None:
            found.append(_noted(store, path, root))
    return tuple(found)


def note_sighting(store: Store, noted: Noted, now: float) -> None:
    """Notes that a project whose root lives was found now, unless that was noted lately. Raises OSError."""
    root = read_root(noted.path)
    if root is None or not root.seen:
        return
    seen = _seen(root.seen, str(noted.folder), now)
    if seen != root.seen:
        write_json_durably(store.layout.folder("tmp"), noted.path, checked(asdict(replace(noted.root, seen=seen))))


# -- what it needs ----------------------------------------------------------------------------------------------------


def _updated(
    earlier: Collection[Root],
    now: Root,
    folder: Path,
    fresh: Iterable[Needed],
    sources: Collection[str],
    steps: Collection[str] | None,
) -> Root:
    """The root as it should be, after the roots that stood for it before."""
    results, uris = set(fresh), set(sources)
    made = {result.step for result in results}
    for root in earlier:
        results |= {
            result for result in root.results if steps is None or (result.step in steps and result.step not in made)
        }
        uris |= set(root.sources) if steps is None else set()
    watched = now.lock if Path(now.lock).exists() else now.spec
    before = tuple(sighting for root in earlier for sighting in root.seen)
    seen = _seen(before, str(folder), time.time())
    return replace(now, watched=watched, results=tuple(sorted(results)), sources=tuple(sorted(uris)), seen=seen)


def _seen(before: tuple[Sighting, ...], folder: str, now: float) -> tuple[Sighting, ...]:
    """Sightings with this one, which is left out where it would be told twice a day."""
    if before and before[0].folder == folder and abs(now - before[0].at) < _DAY:
        return before
    others = dict.fromkeys(sighting.folder for sighting in before)
    latest = {name: max(one.at for one in before if one.folder == name) for name in others if name != folder}
    return (Sighting(folder, round(now)), *(Sighting(name, at) for name, at in latest.items()))[:_PLACES]


# -- where it is ------------------------------------------------------------------------------------------------------


def _noted(store: Store, path: Path, root: Root) -> Noted:
    last_seen = max((sighting.at for sighting in root.seen), default=0.0) or _changed(path)
    for folder in _candidates(store, root):
        moved, identity = _moved_to(root, folder), project_id(folder)
        if root.project and identity not in ("", root.project):
            continue
        if os.path.lexists(moved.watched):
            return Noted(path, moved, folder, Standing.LIVES, last_seen)
        if root.project and identity == root.project:
            # Looked for no further: elsewhere lies a copy, or what the copy was made of.
            return Noted(path, moved, folder, Standing.ENDED, last_seen)
    return Noted(path, root, Path(_folder(root)), Standing.LOST, last_seen)


def _candidates(store: Store, root: Root) -> Iterator[Path]:
    """Folders in which the project may lie."""
    if root.beside:
        yield _inside(store, root)
    if not root.seen:
        yield Path(_folder(root))
    for sighting in root.seen:
        yield Path(sighting.folder)


def _moved_to(root: Root, folder: Path) -> Root:
    """A root whose project lies in a folder now."""
    before = _folder(root)
    lock, spec, watched = (
        os.path.normpath(folder / os.path.relpath(path, before)) for path in (root.lock, root.spec, root.watched)
    )
    return replace(root, lock=lock, spec=spec, watched=watched)


def _folder(root: Root) -> str:
    """The project's folder that the paths of a root lead into: where it was seen last."""
    return root.seen[0].folder if root.seen else str(Path(root.lock).parent)


def _inside(store: Store, root: Root) -> Path:
    return Path(os.path.normpath(store.root.resolve() / root.beside))


def _beside(store: Store, folder: Path) -> str:
    """The way from the store to the project that it lies in; empty if it lies elsewhere."""
    inner, outer = store.root.resolve(), folder.resolve()
    return os.path.relpath(outer, inner) if inner.is_relative_to(outer) else ""


def _earlier(store: Store, path: Path, now: Root, folder: Path) -> Iterator[tuple[Path, Root]]:
    """The roots that stood for this lock until now: its own, and those of places that the project has left."""
    for place in root_paths(store):
        root = read_root(place)
        if root is not None and (place == path or _has_become(store, root, now, folder)):
            yield place, root


def _has_become(store: Store, root: Root, now: Root, folder: Path) -> bool:
    """Returns whether the project of a root is the one in `folder` now."""
    if root.project not in ("", now.project):
        return False
    if root.lock == now.lock:
        return True
    if os.path.relpath(root.lock, _folder(root)) != os.path.relpath(now.lock, folder):
        return False
    if root.beside and same_folder(_inside(store, root), folder):
        return True
    # A copy is a project of its own as long as the original is there.
    return bool(root.project) and not any(
        not same_folder(place, folder) and project_id(place) == root.project
        for place in (Path(sighting.folder) for sighting in root.seen)
    )


# -- files ------------------------------------------------------------------------------------------------------------


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
