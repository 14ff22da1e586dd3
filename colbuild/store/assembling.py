"""Folders outside the store with chosen files of published trees; each file is checked before use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from colbuild.hashing import TreeEntry
from colbuild.store.durable_files import storage_errors
from colbuild.store.layout import Layout
from colbuild.store.objects import DamagedTreeError, read_tree
from colbuild.store.outputs import Assembly, Placement, is_placed, place_files

Choose = Callable[[Sequence[TreeEntry]], Sequence[TreeEntry]]
"""Chooses some of a tree's files."""


def all_files(entries: Sequence[TreeEntry]) -> Sequence[TreeEntry]:
    """Chooses every file."""
    return entries


def assemble(
    layout: Layout, check: Callable[[str], str | None], chosen: Mapping[str, Choose], target: Path
) -> Placement:
    """See `Store.assemble`. `check` reads every byte of a tree, and says what is wrong with it."""
    with storage_errors(target):
        trees = {digest: read_tree(layout, digest) for digest in chosen}
        found = {
            entry: digest
            for digest, tree in trees.items()
            for entry in chosen[digest](tree.entries if tree is not None else ())
        }
        files = Assembly(tuple(sorted(found)), {entry.path: digest for entry, digest in found.items()})
        if None not in trees.values() and is_placed(layout, files, target):
            return Placement(changed=False)
        for digest, tree in trees.items():
            damage = check(digest)
            if damage is not None or tree is None:
                message = f"the result {digest} cannot be placed at {target}: {damage or 'it was damaged'}"
                raise DamagedTreeError(message, digest)
        return place_files(layout, files, target)
