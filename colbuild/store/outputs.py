"""Published trees at places outside the store, where people use them.

Files are hard links to the store's read-only ones where the file system allows it, copies elsewhere. A folder is replaced as a
whole by renaming. What colbuild did not put there is never deleted: it is moved aside.
"""

from __future__ import annotations

import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

from colbuild.errors import BuildError
from colbuild.store.files import read_json, write_json
from colbuild.store.hashing import walk_files
from colbuild.store.layout import Layout
from colbuild.store.locks import hold, remove
from colbuild.store.objects import Tree, read_tree


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
    with hold(layout.lock(f"output-{note.stem}")):
        noted = read_json(note)
        if noted == digest and _holds(target, tree):
            return Placement(changed=False)
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.parent / f".{target.name}.{uuid.uuid4().hex}"
        try:
            _copy(layout.files(digest), tree, draft)
            kept = _clear(layout, target, noted if isinstance(noted, str) else None)
            draft.rename(target)
        finally:
            remove(draft)
        write_json(layout.folder("tmp"), note, digest)
        return Placement(changed=True, kept=kept)


def _holds(target: Path, tree: Tree) -> bool:
    """Whether a folder has just the tree's files, by name and size."""
    if target.is_symlink() or not target.is_dir():
        return False
    try:
        found = {path: status.st_size for path, status in walk_files(target).items()}
    except BuildError:
        return False
    return found == {entry.path: entry.size for entry in tree.entries}


def _copy(source: Path, tree: Tree, draft: Path) -> None:
    for entry in tree.entries:
        place = draft / entry.path
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source / entry.path, place)
        except OSError:
            # Another file system, or one without hard links.
            shutil.copyfile(source / entry.path, place)


def _clear(layout: Layout, target: Path, noted: str | None) -> Path | None:
    """Takes what stands at `target` away: removes what was placed from the store, keeps anything else beside it."""
    if not target.exists() and not target.is_symlink():
        return None
    before = read_tree(layout, noted) if noted else None
    if before is not None and _holds(target, before):
        remove(target)
        return None
    kept = target.with_name(f"{target.name}.kept-{uuid.uuid4().hex[:8]}")
    target.rename(kept)
    return kept
