"""Reads every byte of a store, quarantines damaged results, and names the steps that make them."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from colbuild.fetch.downloads import Record
from colbuild.hashing import hash_file
from colbuild.progress import Progress, Report, silent
from colbuild.run.sharing.listing import Maker, fetched_contents, makers
from colbuild.run.sharing.pinning import one_digest
from colbuild.store import Store
from colbuild.store.collecting.disk_use import size_of
from colbuild.store.collecting.roots import read_roots
from colbuild.store.durable_files import storage_errors
from colbuild.store.locks import hold
from colbuild.store.objects import published, read_tree


@dataclass(frozen=True)
class Damaged:
    """Something that is not what it was when it was made.

    Attributes:
        name: The digest of a result, or the URI of a source.
        steps: Ids of the steps that make it.
        families: The families whose steps these are.
        problem: What is wrong with it, and where it lies now.
    """

    name: str
    steps: tuple[str, ...]
    families: tuple[str, ...]
    problem: str


@dataclass(frozen=True)
class Checked:
    """The result of verifying a store: the numbers of results and sources, their bytes, and the damaged ones."""

    objects: int
    downloads: int
    size: int
    damaged: tuple[Damaged, ...]


def verify_store(store: Store, names: Sequence[str] = (), report: Report = silent) -> Checked:
    """Reads every byte of the results and fetched sources in a store; what is damaged is moved to the quarantine.

    Args:
        store: The store, which need not exist.
        names: Beginnings of digests, for these results alone.
        report: Told the bytes read so far.

    Raises:
        BuildError: A name stands for nothing or for several results, or the disk refuses.
    """
    digests = [one_digest(store, name) for name in names] if names else list(published(store.layout))
    contents = [] if names else list(fetched_contents(store))
    sizes = {digest: tree.size for digest in digests if (tree := read_tree(store.layout, digest)) is not None}
    total = sum(sizes.values()) + sum(size_of(content) for content, _ in contents)
    known = makers(store, read_roots(store))
    damaged: list[Damaged] = []
    done = objects = 0
    for digest in digests:
        report(Progress(done, total, "bytes", f"reading {digest[:12]}"))
        problem = _damage(store, digest)
        if problem is not None:
            maker = known.get(digest, Maker())
            damaged.append(Damaged(digest, tuple(sorted(maker.steps)), tuple(sorted(maker.families)), problem))
        objects += 1
        done += sizes.get(digest, 0)
    for content, record in contents:
        report(
            Progress(done, total, "bytes", f"reading {record.uri if record is not None else content.parent.name[:12]}")
        )
        size = size_of(content)
        problem = _damaged_content(store, content, record)
        if problem is not None:
            damaged.append(Damaged(record.uri if record is not None else content.parent.name, (), (), problem))
        done += size
    report(Progress(total, total, "bytes"))
    return Checked(objects, len(contents), done, tuple(damaged))


def _damage(store: Store, digest: str) -> str | None:
    """What is wrong with a result; it lies in the quarantine then. One that was collected meanwhile is not damaged."""
    if not store.layout.object(digest).exists() or store.verify(digest) is None:
        return None
    return store.check_content(digest) if store.layout.object(digest).exists() else None


def _damaged_content(store: Store, content: Path, record: Record | None) -> str | None:
    """What is wrong with a source that was fetched; it lies in the quarantine then, and is fetched again when needed."""
    with storage_errors(content), hold(content.parent.with_suffix(".lock")):
        problem = _other_content(content, record)
        if problem is None or not content.exists():
            return None
        place = store.layout.folder("quarantine") / f"download-{content.parent.name}-{uuid.uuid4().hex[:8]}"
        content.rename(place)
        return f"{problem}; quarantined as {place}"


def _other_content(content: Path, record: Record | None) -> str | None:
    if record is None:
        return "its record is missing or damaged"
    # A folder lies in `content` under a name of its own.
    roots = sorted(content.iterdir()) if record.is_folder and content.is_dir() else [content]
    if len(roots) != 1:
        return "it is not one folder"
    for entry in record.files:
        path = roots[0] / entry.path
        try:
            if path.stat().st_size != entry.size or hash_file(path) != entry.sha256:
                return f"the content of {entry.path} has changed"
        except FileNotFoundError:
            return f"{entry.path} is missing"
        except OSError as error:
            return f"{entry.path} cannot be read ({error.strerror})"
    return None
