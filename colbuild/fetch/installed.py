"""`pkg://package/file`: a file in an installed package, found without importing the package."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path

from colbuild.errors import SourceUnavailableError
from colbuild.fetch.local import Place, existing
from colbuild.spec.sources.schemes import INDEX
from colbuild.spec.sources.source_kinds import PackageSource


def place(uri: str, source: PackageSource, _: Path) -> Place:
    """Returns the path of an installed package's file.

    Raises:
        SourceUnavailableError: There is no such package, or no such file in it.
    """
    folders = _folders(uri, source.package)
    # os.path: one that cannot be looked at is told by what comes after.
    found = next((folder for folder in folders if os.path.lexists(folder / source.path)), folders[0])
    return existing(Place(uri, found / source.path, None))


def _folders(uri: str, package: str) -> list[Path]:
    """The folders of a package; several for a namespace package."""
    within: Sequence[str] | None = None
    name = ""
    for part in package.split("."):
        name = f"{name}.{part}" if name else part
        spec = _find(name, within)
        if spec is None:
            raise SourceUnavailableError(
                f"{uri}: no package '{name}' is installed for {sys.executable}",
                hint=f"install the package here, or name its distribution: {INDEX.example}",
            )
        if spec.submodule_search_locations is None:
            raise SourceUnavailableError(f"{uri}: '{name}' is a single module without files of its own")
        within = list(spec.submodule_search_locations)
    folders = [Path(location) for location in within or ()]
    if not any(folder.is_dir() for folder in folders):
        raise SourceUnavailableError(
            f"{uri}: the package '{package}' is not unpacked on disk",
            hint="install the package as a folder, not as a zip",
        )
    return folders


def _find(name: str, within: Iterable[str] | None) -> ModuleSpec | None:
    """Asks the import system where a module is. Unlike importlib.util.find_spec, it imports no parent package."""
    path = None if within is None else list(within)
    for finder in sys.meta_path:
        spec = finder.find_spec(name, path)
        if spec is not None:
            return spec
    return None
