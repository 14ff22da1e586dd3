"""One file for each architecture: its `TABLE`. A new file here is a new architecture; nothing else names it.

The files may import the tables' types and the shared parts of `colbuild.arch` (`usual_block`, `setting_kinds`).
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import Final

from colbuild.arch.table import Architecture


def _tables() -> dict[str, Architecture]:
    found: dict[str, Architecture] = {}
    for file in sorted(module.name for module in iter_modules(__path__)):
        table: Architecture = import_module(f"{__name__}.{file}").TABLE
        found[table.name] = table
    return found


ARCHITECTURES: Final = _tables()
"""`model_type` in config.json -> the architecture, in the order of the files' names."""
