"""Recognises a file by its keys: a family, a recipe or a device profile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel

from colbuild.spec.model.written import FamilyFile, ProfileFile, RecipeFile
from colbuild.spec.text.nodes import Fields, Node, Scalar


@dataclass(frozen=True)
class Kind:
    """A kind of file that a person writes.

    Attributes:
        name: What messages call it.
        folder: Where such files lie.
        named: How a family names one.
    """

    name: str
    folder: str
    named: str


KINDS: Final[Mapping[type[BaseModel], Kind]] = {
    FamilyFile: Kind("a family", "specs", "commands take it: colbuild plan {file}"),
    RecipeFile: Kind("a recipe", "recipes", "a family names it, as in chain: {{recipe: {file}}}"),
    ProfileFile: Kind("a device profile", "exports", "a DesNet names it, as in exports: [{stem}]"),
}

_MADE: Final[Mapping[str, tuple[str, str]]] = {
    "colbuild.lock.": ("the lock of a family", "the family's own file, a YAML file, lies beside it"),
    "colbuild.plan.": ("a saved plan", "'colbuild build --plan {file}' builds it"),
    "colbuild.": ("a file that colbuild has written", ""),
}
"""What the format of a file begins with -> what colbuild has written, and what it is for."""


def mistaken(node: Node | None, model: type[BaseModel], file: str) -> tuple[str, str] | None:
    """Returns the actual kind of a file and its use, if its keys are those of another kind than the requested one.

    Args:
        node: Its tree.
        model: What was asked for.
        file: Its path.
    """
    if not isinstance(node, Fields) or not node.entries:
        return None
    stem = file.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    form = node.get("format")
    if isinstance(form, Scalar) and isinstance(form.value, str):
        made = next((told for start, told in _MADE.items() if form.value.startswith(start)), None)
        if made is not None:
            return made[0], made[1].format(file=file, stem=stem)
    if "model_type" in node.entries:
        return "the configuration of a model", "a family names the model's folder, as in ansnet: {source: ./folder}"
    fits = {kind: len(node.entries.keys() & _keys(kind)) for kind in KINDS}
    other = max(fits, key=lambda kind: fits[kind])
    # A file with more right keys than wrong ones is what it was given as, with mistakes.
    if fits[other] <= fits[model] or 2 * fits[model] > len(node.entries):
        return None
    return KINDS[other].name, KINDS[other].named.format(file=file, stem=stem)


def _keys(model: type[BaseModel]) -> frozenset[str]:
    """The keys that only files of this kind are likely to have: a name is tried everywhere."""
    return frozenset(info.alias or key for key, info in model.model_fields.items()) - {"name"}
