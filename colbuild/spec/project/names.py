"""Names of folders: unique in a family, on every file system."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from colbuild.spec.text.nodes import Fields, Items, Node, Scalar
from colbuild.spec.text.problems import Problem

RESERVED: Final = {"ansnet": "the AnsNet's", "bridge": "the bridge's"}
"""Names of members that are taken already, and whose they are: each member has a folder in `out/<family>/`."""

_NOT_A_PROFILE: Final = "checkpoint"


def name_problems(family: Fields) -> Iterator[Problem]:
    """Every name in a written family that another member already has, and every profile that is listed twice."""
    chain = family.get("chain")
    members = [
        *(("an anchor", item) for item in _items(chain.get("anchors") if isinstance(chain, Fields) else None)),
        *(("a DesNet", item) for item in _items(family.get("desnets"))),
    ]
    taken: dict[str, tuple[str, Scalar]] = {}
    for noun, item in members:
        name = item.get("name") if isinstance(item, Fields) else None
        if not isinstance(name, Scalar) or not isinstance(name.value, str):
            continue
        # Some file systems hold 'Phone' and 'phone' for the same folder.
        folded = name.value.lower()
        if folded in RESERVED:
            hint = f"the name is {RESERVED[folded]}, whose folder lies beside those of the others"
            yield Problem(name.place, f"{noun} cannot be called '{name.value}'", hint)
        elif folded in taken:
            other, first = taken[folded]
            same = "" if first.value == name.value else f": '{first.value}' is the same folder on some systems"
            yield Problem(name.place, f"the name '{name.value}' is taken{same}", f"by {other} at {first.place}")
        else:
            taken[folded] = (noun, name)
    holders = [family.get("ansnet"), family.get("defaults"), *(item for _, item in members)]
    for holder in holders:
        yield from _profiles(holder.get("exports") if isinstance(holder, Fields) else None)


def _profiles(exports: Node | None) -> Iterator[Problem]:
    seen: set[str] = set()
    for item in _items(exports):
        if not isinstance(item, Scalar):
            continue
        folded = item.text.lower()
        if folded in seen:
            yield Problem(item.place, f"the profile '{item.text}' is listed twice", "keep one")
        if folded == _NOT_A_PROFILE:
            hint = "choose another name: a model's own folder has this name"
            yield Problem(item.place, f"a profile cannot be called '{item.text}'", hint)
        seen.add(folded)


def _items(node: Node | None) -> tuple[Node, ...]:
    return node.items if isinstance(node, Items) else ()
