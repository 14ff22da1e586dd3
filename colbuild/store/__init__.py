"""What was built: trees found by their content, and records of the actions that made them.

Reading never writes, and writing is one rename. It may import the modules at the root of the package, and nothing else.
"""

from __future__ import annotations

from colbuild.store.objects import DamagedTreeError, Tree
from colbuild.store.outputs import Placement
from colbuild.store.records import ActionRecord
from colbuild.store.store import Store, open_store

__all__ = [
    "ActionRecord",
    "DamagedTreeError",
    "Placement",
    "Store",
    "Tree",
    "open_store",
]
