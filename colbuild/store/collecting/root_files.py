"""The file of a root: what one lock needs of a store, and where its project was seen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from colbuild.hashing import hash_bytes
from colbuild.store.durable_files import read_json, unchecked
from colbuild.store.store import Store


@dataclass(frozen=True, order=True)
class Needed:
    """A result that a root needs: which step's it is, the action's key and the digest of its tree."""

    step: str
    key: str
    output: str


@dataclass(frozen=True)
class Sighting:
    """The folder in which a project was seen, and when, in seconds since 1970; told once a day."""

    folder: str
    at: float


@dataclass(frozen=True)
class Root:
    """The results that one lock needs.

    Attributes:
        lock: The absolute path of the lock file.
        spec: The absolute path of the family's file.
        family: Its name.
        watched: The file that has to be there for the root to live: the lock, or the spec where no lock could be written.
        results: The results it needs, sorted.
        sources: URIs of the sources it needs, sorted.
        project: The project's id; empty where it has none, and in roots of older versions.
        seen: Where the project was seen, the latest first; nothing in roots of older versions.
        beside: The project's folder, relative to the store's, if the store lies in it; else empty.
    """

    lock: str
    spec: str
    family: str
    watched: str
    results: tuple[Needed, ...]
    sources: tuple[str, ...]
    project: str = ""
    seen: tuple[Sighting, ...] = ()
    beside: str = ""


_ADAPTER = TypeAdapter(Root)


def root_paths(store: Store) -> list[Path]:
    """The files of all roots of a store."""
    return sorted(store.layout.folder("roots").glob("*.json"))


def root_path(store: Store, identity: str, lock: Path) -> Path:
    """The file of a lock's root; `identity` is the project's id, empty where it has none."""
    named = (f"{identity}\0" if identity else "") + str(lock)
    return store.layout.folder("roots") / f"{hash_bytes(named.encode('utf-8', 'surrogateescape'))}.json"


def read_root(path: Path) -> Root | None:
    """The root in a file; None if it is missing or damaged."""
    try:
        return _ADAPTER.validate_python(unchecked(read_json(path)))
    except ValidationError:
        return None
