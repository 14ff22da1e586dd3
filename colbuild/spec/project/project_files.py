"""Finds and reads the files that a family refers to, each once, and collects their mistakes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Final

from pydantic import BaseModel

from colbuild.bounds import SPEC_BYTES, SPEC_EXTENDS, SPEC_PROFILES
from colbuild.documents import MalformedError, read_regular
from colbuild.spec.model.family import API_VERSION
from colbuild.spec.model.written import FamilyFile, ProfileFile, RecipeFile, check_recipe_path
from colbuild.spec.project.kinds import KINDS, mistaken
from colbuild.spec.text.check import check, suggest
from colbuild.spec.text.nodes import Fields, Node, Scalar, merge
from colbuild.spec.text.places import Place
from colbuild.spec.text.problems import Problem
from colbuild.spec.text.yaml_text import read_yaml

RECIPES = "recipes"
PROFILES = "exports"

_FIRST_LINES: Final[Mapping[type[BaseModel], str]] = {
    FamilyFile: f"apiVersion: {API_VERSION}",
    RecipeFile: "tokens: 20M",
    ProfileFile: "format: onnx",
}


@dataclass
class Project:
    """A project's root while a family is being read: what was read so far, and what is wrong with it.

    Attributes:
        root: The folder that recipes/, exports/ and specs/ lie in.
        problems: Every mistake found so far.
    """

    root: Path
    problems: list[Problem] = field(default_factory=list)
    _recipes: dict[str, Fields | None] = field(default_factory=dict)
    _profiles: dict[str, Fields | None] = field(default_factory=dict)
    _exports: int = 0

    def note(self, place: Place | None, message: str, hint: str | None = None) -> None:
        """Adds a mistake."""
        self.problems.append(Problem(place, message, hint))

    def recipe(self, node: Node | None) -> Fields | None:
        """The values of the recipe that a `recipe:` or `extends:` names, its parents merged below them.

        None without a name, or if there is something wrong with it, which is then noted.
        """
        return self._recipe(node, ())

    def _recipe(self, node: Node | None, children: tuple[str, ...]) -> Fields | None:
        path = _text(node)
        if node is None or path is None:
            return None
        path = PurePosixPath(path).as_posix()  # "./recipes//a.yaml" is "recipes/a.yaml"
        if path in children:
            circle = " -> ".join((*children[children.index(path) :], path))
            self.note(
                node.place, f"recipes extend each other in a cycle: {circle}", "remove 'extends' from one of them"
            )
            return None
        if len(children) > SPEC_EXTENDS:
            self.note(node.place, f"more than {SPEC_EXTENDS} recipes extend one another, the limit")
            return None
        if path not in self._recipes:
            self._recipes[path] = self._read_recipe(path, node.place, children)
        return self._recipes[path]

    def _read_recipe(self, path: str, place: Place, children: tuple[str, ...]) -> Fields | None:
        try:
            check_recipe_path(path)
        except ValueError:
            return None  # the check of the file that names it tells
        own = self._read(path, RecipeFile, "recipe", place)
        if own is None:
            return None
        parent = self._recipe(own.get("extends"), (*children, path))
        values = own.without("extends")
        return merge(parent, values) if parent else values

    def profile(self, node: Node) -> Fields | None:
        """The device profile that an item of `exports:` names, with its `name`; placed where it is named."""
        name = _text(node)
        if name is None or "/" in name or "\\" in name or name in (".", ".."):
            return None  # the check of the family file tells
        self._exports += 1
        if self._exports > SPEC_PROFILES:
            if self._exports == SPEC_PROFILES + 1:
                self.note(node.place, f"the family has more than {SPEC_PROFILES:,} exports, the limit")
            return None
        if name not in self._profiles:
            self._profiles[name] = self._read(f"{PROFILES}/{name}.yaml", ProfileFile, "device profile", node.place)
        values = self._profiles[name]
        return replace(values, place=node.place).with_entry("name", node) if values else None

    def _read(self, path: str, model: type[BaseModel], noun: str, place: Place) -> Fields | None:
        try:
            found = (self.root / path).resolve()
            if not found.is_relative_to(self.root.resolve()):
                self.note(place, f"the {noun} '{path}' is outside the project", "copy the file into the project")
                return None
            raw = read_regular(found, SPEC_BYTES)
        except (OSError, ValueError) as error:
            self._unreadable(path, noun, place, error)
            return None
        return self.read(raw, path, model, place)

    def read(self, raw: bytes, file: str, model: type[BaseModel], named: Place | None = None) -> Fields | None:
        """A file's tree, checked against its model; None if it has no keys to go on with.

        Args:
            raw: The file's bytes.
            file: Its path from the project's root.
            model: What it should be.
            named: Where another file names it.
        """
        document = read_yaml(raw, file)
        other = mistaken(document.root, model, file)
        if other is not None and document.root is not None:
            what, purpose = other
            asked = KINDS[model]
            subject = "this file" if named is None else f"'{file}'"
            there = [f"{asked.folder}/{name}" for name in self.list(asked.folder)][:5]
            hints = [purpose, f"files of this kind here: {', '.join(there)}" if there else ""]
            self.note(
                named or document.root.place, f"{subject} is {what}, not {asked.name}", "; ".join(filter(None, hints))
            )
            return None
        self.problems += document.problems
        if document.root is None:
            if not document.problems:
                self.note(Place(file, 1, 1), "the file is empty", f"it may start with '{_FIRST_LINES[model]}'")
            return None
        _, problems = check(model, document.root, partial=True)
        self.problems += problems
        return document.root if isinstance(document.root, Fields) else None

    def _unreadable(self, path: str, noun: str, place: Place, error: OSError | ValueError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            why = error.strerror if isinstance(error, OSError) else unreadable(error)
            self.note(place, f"the {noun} '{path}' cannot be read: {why}")
            return
        folder, profiles = (PROFILES, True) if noun == "device profile" else (RECIPES, False)
        there = self.list(folder)
        known = [Path(name).stem if profiles else f"{folder}/{name}" for name in there]
        asked = Path(path).stem if profiles else path
        likely = suggest(asked, known)
        hint = f"did you mean '{likely}'? " if likely else ""
        hint += f"{noun}s here: {', '.join(known)}" if known else f"{folder}/ holds no YAML files"
        self.note(place, f"there is no {noun} '{asked}'" + (f" ({path})" if profiles else ""), hint)

    def list(self, folder: str) -> list[str]:
        """The YAML files directly in a folder of the project, sorted."""
        try:
            return sorted(path.name for path in (self.root / folder).iterdir() if path.suffix in (".yaml", ".yml"))
        except OSError:
            return []


def unreadable(error: ValueError) -> str:
    """Returns the reason why a file cannot be read, if the system gives none."""
    return str(error) if isinstance(error, MalformedError) else "this cannot be a path"


def _text(node: Node | None) -> str | None:
    return node.value if isinstance(node, Scalar) and isinstance(node.value, str) else None
