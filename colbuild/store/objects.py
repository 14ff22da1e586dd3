"""Published trees: how one comes into the store, is checked, and is set aside when it is damaged."""

from __future__ import annotations

import errno
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from colbuild.errors import BuildError
from colbuild.store.files import read_json, seal_tree, sync_folder, write_json
from colbuild.store.hashing import TreeEntry, hash_file, scan_tree, tree_digest, walk_files
from colbuild.store.layout import Layout


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


def publish(layout: Layout, draft: Path) -> Tree:
    """Move `draft`, a folder in the store's `tmp` with the built tree in `draft/files`, to its place under its digest.

    The bytes are on the disk before the name is. If the same tree is there already, that one is kept.

    Raises:
        BuildError: The tree is empty, or holds something that is neither a file nor a folder.
        OSError: The disk refuses.
    """
    files = draft / "files"
    entries = scan_tree(files)
    if not entries:
        raise BuildError("nothing was written")
    tree = Tree(tree_digest(entries), entries)
    place = layout.object(tree.digest)
    if place.exists():
        if damage(layout, tree.digest) is None:
            return tree
        quarantine(layout, tree.digest)
    write_json(layout.folder("tmp"), draft / "tree.json", entries_to_json(entries))
    seal_tree(draft)
    place.parent.mkdir(exist_ok=True)
    try:
        draft.rename(place)
    except OSError as error:
        # Another key with the same output was published in between: its tree is as good.
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    sync_folder(place.parent)
    sync_folder(place.parent.parent)
    return tree


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
        return tuple(TreeEntry(**row) for row in rows)
    except TypeError:
        return None


def damage(layout: Layout, digest: str) -> str | None:
    """What a look at names and sizes finds wrong with a tree; None if nothing. No file's content is read."""
    tree = read_tree(layout, digest)
    if tree is None:
        return "its list of files is missing or damaged"
    expected = {entry.path: entry.size for entry in tree.entries}
    try:
        found = {path: status.st_size for path, status in walk_files(layout.files(digest)).items()}
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    except BuildError as error:
        return error.message
    for path in sorted(expected.keys() | found.keys()):
        if path not in found:
            return f"{path} is missing"
        if path not in expected:
            return f"{path} does not belong to it"
        if found[path] != expected[path]:
            return f"{path} has {found[path]} bytes instead of {expected[path]}"
    return None


def damage_inside(layout: Layout, digest: str) -> str | None:
    """Like `damage`, and every file's content is read and compared."""
    found = damage(layout, digest)
    tree = read_tree(layout, digest)
    if found is not None or tree is None:
        return found
    return next(filter(None, (_changed(layout.files(digest), entry) for entry in tree.entries)), None)


def _changed(root: Path, entry: TreeEntry) -> str | None:
    try:
        same = hash_file(root / entry.path) == entry.sha256
    except OSError as error:
        return f"{entry.path} cannot be read ({error.strerror})"
    return None if same else f"the content of {entry.path} has changed"


def quarantine(layout: Layout, digest: str) -> Path | None:
    """Set a tree aside so that it is never used again; returns where it lies now, None if it was gone."""
    place = layout.folder("quarantine") / f"{digest}-{uuid.uuid4().hex[:8]}"
    try:
        layout.object(digest).rename(place)
    except FileNotFoundError:
        return None
    return place
