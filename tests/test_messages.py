"""How messages are written: one style of hint, and no phrase that makes a reader guess."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.helpers.project import ROOT

FILES = sorted((ROOT / "colbuild").rglob("*.py"))
NAMES = ("AnsNet", "DesNet", "GGUF", "HF_", "ONNX", "COLBUILD_", "PIP_", "BPE", "UTF-8")
"""Words that keep their capitals at the beginning of a hint."""


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


# -- hints ------------------------------------------------------------------------------------------------------------


@cache
def places() -> dict[str, int]:
    """Function or class -> the place of its argument `hint` among those that are given by place."""
    found: dict[str, int] = {}
    for path in FILES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef):
                names = [argument.arg for argument in node.args.args if argument.arg not in ("self", "cls")]
            elif isinstance(node, ast.ClassDef):
                fields = (part.target for part in node.body if isinstance(part, ast.AnnAssign))
                names = [target.id for target in fields if isinstance(target, ast.Name)]
            else:
                continue
            if "hint" in names:
                found[node.name] = names.index("hint")
    return found


def ends(node: ast.expr) -> Iterator[tuple[str, str]]:
    """Head and tail of each text that an expression may be; empty where a value stands."""
    if isinstance(node, ast.IfExp):
        yield from ends(node.body)
        yield from ends(node.orelse)
    elif isinstance(node, ast.BoolOp):
        for value in node.values:
            yield from ends(value)
    elif isinstance(node, ast.BinOp):
        yield from ((head, "") for head, _ in ends(node.left))
        yield from (("", tail) for _, tail in ends(node.right))
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value, node.value
    elif isinstance(node, ast.JoinedStr):
        texts = [part.value if isinstance(part, ast.Constant) else "" for part in (node.values[0], node.values[-1])]
        yield str(texts[0]), str(texts[1])


def hints(path: Path) -> Iterator[tuple[int, str, str]]:
    """Line, head and tail of every hint in a file, also where it is a constant or a variable called so."""
    named = {"hint"}
    for node in ast.walk(tree(path)):
        given: list[ast.expr] = []
        if isinstance(node, ast.Call):
            given = [keyword.value for keyword in node.keywords if keyword.arg == "hint"]
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            place = places().get(name)
            given += node.args[place : place + 1] if place is not None else []
            named |= {value.id for value in given if isinstance(value, ast.Name)}
        yield from ((value.lineno, *found) for value in given for found in ends(value))
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(target, ast.Name) and target.id in named:
                yield from ((node.lineno, *found) for found in ends(node.value))


def test_there_are_hints():
    assert sum(len(list(hints(path))) for path in FILES) > 250
    assert places()["Problem"] == 2


@pytest.mark.parametrize("room", sorted({path.relative_to(ROOT / "colbuild").parts[0] for path in FILES}))
def test_a_hint_begins_in_lower_case_and_ends_without_a_full_stop(room: str):
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {head or tail}"
        for path in FILES
        if path.relative_to(ROOT / "colbuild").parts[0] == room
        for line, head, tail in hints(path)
        if (head[:1].isupper() and not head.startswith(NAMES)) or (tail.rstrip().endswith(".") and tail[-2:] != "..")
    ]
    assert wrong == []
