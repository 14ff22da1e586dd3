"""Published trees: how they are published, checked and quarantined.

Whoever decides that a tree is damaged and moves it away, and whoever puts one in its place, holds the tree's lock.
Otherwise two builds over a damaged tree would quarantine the copy that the other has just made.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from colbuild.errors import BuildError
from colbuild.hashing import TreeEntry, hash_file, scan_tree, tree_digest
from colbuild.store.durable_files import dump_json, read_json, seal_tree, sync_folder
from colbuild.store.layout import Layout
from colbuild.store.leases import renew
from colbuild.store.locks import hold
from colbuild.store.stamps import Stamps, read_stamps, stamps_of, write_stamps


@dataclass(frozen=True)
class Tree:
    """A published tree.

    Attributes:
        digest: Of the tree.
        entries: Its files, sorted by path.
    """

    digest: str
    entries: tuple[TreeEntry, ...]

    @property
    def size(self) -> int:
        """The bytes in all files."""
        return sum(entry.size for entry in self.entries)


class DamagedTreeError(BuildError):
    """A tree that is needed is damaged, and set aside by now, or gone; `digest` says which. It has to be built again."""

    def __init__(self, message: str, digest: str) -> None:
        super().__init__(message, hint="build again")
        self.digest = digest


@dataclass(frozen=True)
class Look:
    """The result of checking a published tree.

    Attributes:
        damage: What is wrong with it; None if nothing is.
        stamps: Of its files, as they were before any of them was read.
        stale: Whether stamps are noted beside it that its files no longer have, or none.
    """

    damage: str | None
    stamps: Stamps = field(default_factory=dict)
    stale: bool = False


@contextmanager
def held(layout: Layout, digest: str) -> Iterator[None]:
    """Holds the lock of a tree: nobody publishes it or sets it aside meanwhile. Raises OSError."""
    with hold(layout.lock(f"object-{digest}")):
        yield


def publish(layout: Layout, draft: Path) -> tuple[Tree, Stamps]:
    """Moves `draft`, a folder in the store's `tmp` with the built tree in `draft/files`, to its place under its digest.

    The bytes are on the disk before the name is, and are written by nobody but the step that made them. If the same tree
    is there already and is whole to the last byte, that one is kept.

    Returns:
        The tree, and the stamps of its files.

    Raises:
        BuildError: The tree is empty, or holds something that is neither a file nor a folder.
        OSError: The disk refuses.
    """
    files = draft / "files"
    # Taken before the content is read: a write in between then shows.
    stamps = stamps_of(files)
    entries = scan_tree(files)
    if not entries:
        raise BuildError("the step wrote no files")
    tree = Tree(tree_digest(entries), entries)
    place = layout.object(tree.digest)
    with held(layout, tree.digest):
        if place.exists():
            # Read as a whole: here is the right content, so that damage which leaves no trace ends here at no cost.
            there = look(layout, tree.digest, full=True)
            if there.damage is not None:
                quarantine(layout, tree.digest)
            elif renew(layout, tree.digest):
                if there.stale:
                    write_stamps(layout.folder("tmp"), layout.stamps(tree.digest), there.stamps)
                return tree, there.stamps
            # Else it was collected between the two looks.
        # Nobody else looks into the draft, so these need not appear at once.
        (draft / "tree.json").write_bytes(dump_json(entries_to_json(entries)))
        seal_tree(draft)
        # Not sealed: if a power loss takes the stamps, every file is read once, and they are noted anew.
        (draft / "stat.json").write_bytes(dump_json(stamps))
        (draft / "stat.json").chmod(0o444)
        place.parent.mkdir(exist_ok=True)
        draft.rename(place)
        sync_folder(place.parent)
        sync_folder(place.parent.parent)
    return tree, stamps


def read_tree(layout: Layout, digest: str) -> Tree | None:
    """The tree's list of files; None if it is missing or is not the one that the digest names."""
    entries = entries_from_json(read_json(layout.tree(digest)))
    return Tree(digest, entries) if entries and tree_digest(entries) == digest else None


def entries_to_json(entries: tuple[TreeEntry, ...]) -> list[dict[str, Any]]:
    """A list of files as JSON values."""
    return [asdict(entry) for entry in entries]


def entries_from_json(rows: Any) -> tuple[TreeEntry, ...] | None:
    """The list of files behind JSON values; None if they are not one."""
    try:
        entries = tuple(TreeEntry(**row) for row in rows)
    except TypeError:
        return None
    sound = all(type(e.path) is str and type(e.size) is int and type(e.sha256) is str for e in entries)
    return entries if sound else None


def look(layout: Layout, digest: str, known: Stamps | None = None, *, full: bool = False) -> Look:
    """Checks a tree against its digest. Names, sizes and stamps are compared; nothing is written.

    Args:
        layout: Of the store.
        digest: The tree's.
        known: Stamps that are known to stand for the right content, beside those that are noted with the tree.
        full: Whether every file is read; otherwise only those are that have other stamps.
    """
    tree = read_tree(layout, digest)
    if tree is None:
        return Look("its list of files is missing or damaged")
    try:
        stamps = stamps_of(layout.files(digest))
    except OSError as error:
        return Look(f"it cannot be read ({error.strerror})")
    except BuildError as error:
        return Look(error.message)
    found = _other_files(tree, stamps)
    if found is not None:
        return Look(found)
    noted, known = read_stamps(layout.stamps(digest)), known or {}
    for entry in tree.entries:
        stamp = stamps[entry.path]
        if full or stamp not in (noted.get(entry.path), known.get(entry.path)):
            found = _changed(layout.files(digest), entry)
            if found is not None:
                return Look(found)
    return Look(None, stamps, stale=noted != stamps)


def _other_files(tree: Tree, stamps: Stamps) -> str | None:
    """The first name or size that is not as it should be."""
    expected = {entry.path: entry.size for entry in tree.entries}
    for path in sorted(expected.keys() | stamps.keys()):
        if path not in stamps:
            return f"{path} is missing"
        if path not in expected:
            return f"{path} does not belong to it"
        if stamps[path][0] != expected[path]:
            return f"{path} has {stamps[path][0]} bytes instead of {expected[path]}"
    return None


def _changed(root: Path, entry: TreeEntry) -> str | None:
    try:
        same = hash_file(root / entry.path) == entry.sha256
    except OSError as error:
        return f"{entry.path} cannot be read ({error.strerror})"
    return None if same else f"the content of {entry.path} has changed"


def note_stamps(layout: Layout, digest: str, stamps: Stamps) -> None:
    """Notes the stamps that the files of a tree were read with, if they still have them. Raises OSError, BuildError."""
    with held(layout, digest):
        if stamps_of(layout.files(digest)) == stamps:
            write_stamps(layout.folder("tmp"), layout.stamps(digest), stamps)


def published(layout: Layout) -> Iterator[str]:
    """The digests of every tree in the store, damaged ones included."""
    for place in sorted(layout.folder("objects").glob("*/*")):
        yield place.name


def quarantine(layout: Layout, digest: str) -> Path | None:
    """Sets a tree aside so that it is never used again; returns where it lies now, None if it was gone.

    The caller holds the tree's lock, and has looked at it since.
    """
    place = layout.folder("quarantine") / f"{digest}-{uuid.uuid4().hex[:8]}"
    try:
        layout.object(digest).rename(place)
    except FileNotFoundError:
        return None
    return place
