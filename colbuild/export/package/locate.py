"""Finds the package that a user means by a folder: the folder itself, or the single package in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from colbuild.bounds import MANIFEST_BYTES
from colbuild.documents import read_json_file, unreadable
from colbuild.errors import BuildError
from colbuild.export.manifest import PACKAGE_HINT
from colbuild.plan.steps.export import MANIFEST

_DEEPEST: Final = 3
"""Folders between `out` and a package: the family, the model, the profile."""

_NAMED: Final = 6
_TO_EXPORT: Final = f"name a profile in 'exports' of its model, run 'colbuild build', and {PACKAGE_HINT}"
_CHECKPOINT: Final = "checkpoint"
_SET_ASIDE: Final = ".kept-"
"""What colbuild calls a folder of somebody's that it moved out of a package's way."""


def find_package(given: Path) -> Path:
    """The package that a folder is, or holds as the only one.

    Args:
        given: As the user gave it; a file is returned as it is.

    Raises:
        BuildError: There is no package, or several: the message says what there is, and what to give. Or it may not be read.
    """
    trouble = unreadable(given)
    if trouble is not None:
        raise BuildError(f"{given} cannot be read: {trouble}")
    if given.is_file() or (given / MANIFEST).is_file():
        return given
    if not given.is_dir():
        raise BuildError(f"{given} is not a folder", hint=_near(given) or PACKAGE_HINT)
    found = list(_packages_in(given))
    if len(found) == 1:
        return found[0]
    if found:
        raise BuildError(f"{given} holds {len(found)} packages", hint=f"give one of them: {_listed(found)}")
    model = _model_kind(given)
    if model is None and (inside := _model_kind(given / _CHECKPOINT)) is not None:
        raise BuildError(f"{given} holds {inside}, and no package for a device", hint=_TO_EXPORT)
    beside = [one for one in _packages_in(given.parent) if one != given]
    hint = f"give a package: {_listed(beside)}" if beside else PACKAGE_HINT
    if model is not None:
        raise BuildError(
            f"{given} is {model}, not a package for a device",
            hint=hint if beside else _TO_EXPORT,
        )
    raise BuildError(f"{given} is not a package: it has no {MANIFEST}", hint=PACKAGE_HINT)


def _packages_in(folder: Path, depth: int = _DEEPEST) -> Iterator[Path]:
    """The packages below a folder, by path."""
    try:
        below = sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())
    except OSError:
        return
    for path in below:
        if path.name.startswith(".") or _SET_ASIDE in path.name:
            continue
        if _is_package(path):
            yield path
        elif depth > 1:
            yield from _packages_in(path, depth - 1)


def _is_package(folder: Path) -> bool:
    """Returns whether a folder has a manifest of ours: other programs call files of theirs so too."""
    try:
        written = read_json_file(folder / MANIFEST, MANIFEST_BYTES)
    except (OSError, ValueError):
        return False
    return isinstance(written, dict) and "schema_version" in written


def _model_kind(folder: Path) -> str | None:
    """What a folder with a model for training is called; None for any other."""
    try:
        config = read_json_file(folder / "config.json")
        kind = config.get("model_type")
    except (OSError, ValueError, AttributeError):
        kind = None
    if kind is not None:
        return f"a model's folder for transformers ({kind})"
    weights = sorted(path.name for path in folder.glob("*") if path.suffix in (".gguf", ".safetensors"))
    return f"a folder of weights ({weights[0]})" if weights else None


def _near(given: Path) -> str | None:
    """What there is beside a folder that does not exist."""
    beside = list(_packages_in(given.parent)) if given.parent.is_dir() else []
    return f"packages there: {_listed(beside)}" if beside else None


def _listed(packages: list[Path]) -> str:
    return ", ".join(str(path) for path in packages[:_NAMED]) + (", …" if packages[_NAMED:] else "")
