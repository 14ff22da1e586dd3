"""Roots: what each lock that was built here needs, so that the collector keeps it.

A root belongs to one lock file, and counts as long as that file is there: who removes a project, or a family's lock, frees what
only that needed. Where no lock could be written, the spec stands for it.

While a build runs, what it makes and finds joins what the last build of the same lock needed; only when it is done does the
rest go. So neither an interrupted build nor a change that is taken back costs what was built before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from colbuild.errors import BuildError
from colbuild.store.files import checked, read_json, storage_errors, unchecked, write_json_durably
from colbuild.store.leases import shared
from colbuild.store.locks import hold
from colbuild.store.records import ActionRecord
from colbuild.store.store import Store


@dataclass(frozen=True, order=True)
class Needed:
    """A result that a root needs: which step's it is, the action's key and the digest of its tree."""

    step: str
    key: str
    output: str


@dataclass(frozen=True)
class Root:
    """What one lock needs.

    Attributes:
        lock: The absolute path of the lock file.
        spec: The absolute path of the family's file.
        family: Its name.
        watched: The file that has to be there for the root to count: the lock, or the spec where no lock could be written.
        results: The results it needs, sorted.
        sources: URIs of the sources it needs, sorted.
    """

    lock: str
    spec: str
    family: str
    watched: str
    results: tuple[Needed, ...]
    sources: tuple[str, ...]

    @property
    def counts(self) -> bool:
        """Whether it still keeps anything."""
        return Path(self.watched).exists()


_ADAPTER = TypeAdapter(Root)


def note_root(
    store: Store,
    *,
    lock: Path,
    spec: Path,
    family: str,
    records: Mapping[str, ActionRecord],
    sources: Collection[str],
    steps: Collection[str] | None = None,
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

    Raises:
        BuildError: The disk refuses.
    """
    lock, spec = lock.absolute(), spec.absolute()
    fresh = {Needed(step, record.key, record.output) for step, record in records.items()}
    path = _path(store, lock)
    with storage_errors(path):
        before = _read(path)
        if before == _updated(before, lock, spec, family, fresh, sources, steps):
            # A build with nothing to do writes nothing, so it works on a store that it may only read.
            return False
        # Two builds of one lock at once: neither forgets what the other noted.
        with hold(store.layout.lock(f"root-{path.stem}")), shared(store.layout):
            before = _read(path)
            root = _updated(before, lock, spec, family, fresh, sources, steps)
            if before == root:
                return False
            write_json_durably(store.layout.folder("tmp"), path, checked(asdict(root)))
    return True


def read_roots(store: Store) -> tuple[Root, ...]:
    """Every root of a store, those that no longer count included.

    Raises:
        BuildError: One cannot be read, so that nobody can tell what it needs.
    """
    return tuple(root for _, root in root_files(store))


def root_files(store: Store) -> tuple[tuple[Path, Root], ...]:
    """Every root with its file. Raises what `read_roots` raises."""
    found = []
    for path in sorted(store.layout.folder("roots").glob("*.json")):
        root = _read(path)
        if root is None and path.exists():
            raise BuildError(
                f"{path} is damaged: nobody can tell which results it keeps",
                hint="Run 'colbuild build' in each project that uses this store, which writes it anew; "
                "if it is still damaged then, its project is gone: remove the file.",
            )
        if root is not None:
            found.append((path, root))
    return tuple(found)


def _updated(
    before: Root | None,
    lock: Path,
    spec: Path,
    family: str,
    fresh: Iterable[Needed],
    sources: Collection[str],
    steps: Collection[str] | None,
) -> Root:
    results, uris = set(fresh), set(sources)
    if before is not None:
        made = {result.step for result in results}
        results |= {
            result for result in before.results if steps is None or (result.step in steps and result.step not in made)
        }
        uris |= set(before.sources) if steps is None else set()
    watched = lock if lock.exists() else spec
    return Root(str(lock), str(spec), family, str(watched), tuple(sorted(results)), tuple(sorted(uris)))


def _path(store: Store, lock: Path) -> Path:
    return (
        store.layout.folder("roots")
        / f"{hashlib.sha256(str(lock).encode('utf-8', 'surrogateescape')).hexdigest()}.json"
    )


def _read(path: Path) -> Root | None:
    try:
        return _ADAPTER.validate_python(unchecked(read_json(path)))
    except ValidationError:
        return None
