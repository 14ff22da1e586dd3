"""Loads a family from a path: the only entry point."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from colbuild.bounds import SPEC_BYTES
from colbuild.documents import read_regular
from colbuild.errors import SpecError
from colbuild.spec.model.device import Profile
from colbuild.spec.model.family import Family
from colbuild.spec.model.written import FamilyFile, ProfileFile
from colbuild.spec.project.names import name_problems
from colbuild.spec.project.project_files import PROFILES, RECIPES, Project, unreadable
from colbuild.spec.project.resolve import resolve
from colbuild.spec.text.check import check
from colbuild.spec.text.nodes import Scalar, known_places
from colbuild.spec.text.places import Places
from colbuild.spec.text.problems import spec_error

SPECS = "specs"
OTHERS = (RECIPES, PROFILES)
DEFAULT_SPEC = f"{SPECS}/family.yaml"


@dataclass(frozen=True)
class LoadedFamily:
    """A family and where everything in it was written.

    Attributes:
        family: The resolved family.
        path: The file it was read from, absolute.
        root: The project's root, absolute: what recipes, profiles and relative sources are relative to.
        places: Path in `family` -> file and line.
    """

    family: Family
    path: Path
    root: Path
    places: Places


def load_family(path: Path) -> LoadedFamily:
    """Reads a family with its recipes and profiles.

    Args:
        path: The family's file. The project's root is the parent of `specs/` if it lies there, else its own folder.

    Raises:
        SpecError: With every mistake in all the files, each at its place.
    """
    raw = _read(path)
    path = Path(os.path.abspath(path))  # noqa: PTH100  (Path.resolve would follow links to another project)
    inside = path.parent.name == SPECS or (path.parent.name in OTHERS and (path.parent.parent / SPECS).is_dir())
    root = path.parent.parent if inside else path.parent
    project = Project(root)
    written = project.read(raw, path.relative_to(root).as_posix(), FamilyFile)
    if written is None:
        raise spec_error(project.problems)
    project.problems += name_problems(written)
    resolved = resolve(project, written)
    if project.problems:
        raise spec_error(project.problems)
    family, problems = check(Family, resolved)
    if family is None:
        raise spec_error(problems)
    return LoadedFamily(family, path, root, Places(known_places(resolved)))


def load_profile(path: Path) -> Profile:
    """Reads a device profile by itself; its name is the file's.

    Raises:
        SpecError: With every mistake in it, each at its place.
    """
    raw = _read(path, "a device profile")
    project = Project(path.parent)
    written = project.read(raw, path.name, ProfileFile)
    if written is None or project.problems:
        raise spec_error(project.problems)
    profile, problems = check(Profile, written.with_entry("name", Scalar(path.stem, path.stem, written.place)))
    if profile is None:
        raise spec_error(problems)
    return profile


def _read(path: Path, noun: str = "a family's file") -> bytes:
    try:
        return read_regular(path, SPEC_BYTES)
    except IsADirectoryError:
        raise SpecError(f"{path} is a folder, not {noun}", hint=_others(path) or _DEFAULT) from None
    except FileNotFoundError:
        raise SpecError(f"there is no file {path}", hint=_others(path.parent) or _DEFAULT) from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else unreadable(error)
        raise SpecError(f"{path} cannot be read: {why}", hint=_DEFAULT) from None


_DEFAULT = f"name the family's file, by default {DEFAULT_SPEC}"


def _others(folder: Path) -> str | None:
    """What could be meant instead: the YAML files in a folder or in its specs/, the default first."""
    for place in (folder, folder / SPECS):
        files = sorted(place.glob("*.yaml")) if place.is_dir() else []
        files.sort(key=lambda file: file.name != Path(DEFAULT_SPEC).name)
        if files:
            return f"did you mean {' or '.join(map(str, files[:5]))}?"
    return None
