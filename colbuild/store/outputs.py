"""Published trees at places outside the store, where people use them.

Large files are hard links to the store's read-only ones where the file system allows it; everything else is copied.
A folder is replaced as a whole by renaming. What colbuild did not put there is never deleted: it is moved aside. What it did
put there it knows by a note of names and digests, so a file that somebody has replaced is told from ours even if it has the
same size.
"""

from __future__ import annotations

import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

from colbuild.errors import BuildError
from colbuild.store.files import read_json, write_json
from colbuild.store.hashing import TreeEntry, hash_file, tree_digest, walk_files
from colbuild.store.layout import Layout
from colbuild.store.locks import hold, remove
from colbuild.store.objects import Tree, entries_from_json, entries_to_json, read_tree

LINKED_BYTES = 1 << 20
"""Smaller files are copied: these are what people edit, and an edit must not reach the store."""


@dataclass(frozen=True)
class Placement:
    """What placing a tree did.

    Attributes:
        changed: Whether it was not there already.
        kept: Where files of somebody else's that stood there lie now; None if there were none.
    """

    changed: bool
    kept: Path | None = None


def place_tree(layout: Layout, digest: str, target: Path) -> Placement:
    """Makes the folder `target` hold a published tree and nothing else.

    Raises:
        BuildError: The tree is not in the store.
        OSError: The disk refuses.
    """
    tree = read_tree(layout, digest)
    if tree is None:
        raise BuildError(f"{digest} is not in the store", hint="build again")
    note = layout.output(target)
    # Without the lock first: a build with nothing to do writes nothing, so it works on a store that it may only read.
    if entries_from_json(read_json(note)) == tree.entries and _holds(target, tree.entries):
        return Placement(changed=False)
    with hold(layout.lock(f"output-{note.stem}")):
        noted = entries_from_json(read_json(note))
        if _consists_of(layout, target, tree.entries):
            # Put there by another build meanwhile, by one that died before it noted it, or with a store that is gone.
            write_json(layout.folder("tmp"), note, entries_to_json(tree.entries))
            return Placement(changed=False)
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.parent / f".{target.name}.{uuid.uuid4().hex}"
        try:
            _copy(layout.files(digest), tree, draft)
            kept = _clear(layout, target, noted)
            draft.rename(target)
        finally:
            remove(draft)
        write_json(layout.folder("tmp"), note, entries_to_json(tree.entries))
        return Placement(changed=True, kept=kept)


def _holds(target: Path, entries: tuple[TreeEntry, ...]) -> bool:
    """Whether a folder has just these files, by name and size."""
    if target.is_symlink() or not target.is_dir():
        return False
    try:
        found = {path: status.st_size for path, status in walk_files(target).items()}
    except BuildError:
        return False
    return found == {entry.path: entry.size for entry in entries}


def _consists_of(layout: Layout, target: Path, entries: tuple[TreeEntry, ...]) -> bool:
    """Whether a folder has just these files, by content; what is linked to the store's own file need not be read."""
    if not _holds(target, entries):
        return False
    stored = layout.files(tree_digest(entries))
    return all(
        _same_file(target / entry.path, stored / entry.path) or hash_file(target / entry.path) == entry.sha256
        for entry in entries
    )


def _same_file(first: Path, second: Path) -> bool:
    try:
        return first.samefile(second)
    except FileNotFoundError:
        return False


def _copy(source: Path, tree: Tree, draft: Path) -> None:
    for entry in tree.entries:
        place = draft / entry.path
        place.parent.mkdir(parents=True, exist_ok=True)
        if entry.size < LINKED_BYTES or not _link(source / entry.path, place):
            shutil.copyfile(source / entry.path, place)


def _link(source: Path, place: Path) -> bool:
    try:
        os.link(source, place)
    except OSError:
        # Another file system, or one without hard links.
        return False
    return True


def _clear(layout: Layout, target: Path, noted: tuple[TreeEntry, ...] | None) -> Path | None:
    """Takes what stands at `target` away: removes what was placed from the store, keeps anything else beside it."""
    if not target.exists() and not target.is_symlink():
        return None
    if noted is not None and _consists_of(layout, target, noted):
        remove(target)
        return None
    kept = target.with_name(f"{target.name}.kept-{uuid.uuid4().hex[:8]}")
    target.rename(kept)
    return kept
