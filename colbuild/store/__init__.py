"""What was built: trees found by their content, and records of the actions that made them."""

from __future__ import annotations

from colbuild.store.hashing import TreeEntry, hash_file, scan_tree, tree_digest
from colbuild.store.objects import Tree
from colbuild.store.outputs import Placement
from colbuild.store.records import ActionRecord
from colbuild.store.store import Store, open_store

__all__ = [
    "ActionRecord",
    "Placement",
    "Store",
    "Tree",
    "TreeEntry",
    "hash_file",
    "open_store",
    "scan_tree",
    "tree_digest",
]
