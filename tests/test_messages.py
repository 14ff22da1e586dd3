"""How messages are written: one style of hint, and no phrase that makes a reader guess."""

from __future__ import annotations

import ast
import re
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


# -- phrases ----------------------------------------------------------------------------------------------------------

PHRASES = (
    "a crash takes",
    "anew",
    "by lot",
    "cannot be had",
    "cannot be meant",
    "cut off",
    "dear to",
    "drawn by lot",
    "for good",
    "goes on from",
    "hardly meant",
    "hold the world",
    "in words",
    "is no number",
    "is none",
    "let go of",
    "lets go of",
    "likeliest",
    "more lately",
    "no few",
    "no numbers",
    "nobody",
    "shall",
    "somebody",
    "taken for",
    "takes nobody",
    "that which",
    "the most that",
    "what is no",
)
"""Phrases that make a reader guess; CONTRIBUTING.md says how to write instead."""
STORED = {
    "colbuild/export/package/companions.py",  # the card of a package
    "colbuild/export/package/parity.py",  # prose that a package is measured on
}
"""Files whose texts are part of results, whose bytes must stay."""


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of every message, help text and description of a file, and of its module's docstring."""
    docstrings = {id(node.value) for node in ast.walk(tree(path)) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value
    yield 1, ast.get_docstring(tree(path)) or ""


def helped() -> Iterator[tuple[Path, int, str]]:
    """The docstrings of commands, which `--help` prints, and of the spec's models, which editors show."""
    for path in FILES:
        if path.parent.name in ("cli", "model"):
            for node in ast.walk(tree(path)):
                if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                    yield path, node.lineno, (ast.get_docstring(node) or "").split("\n\n")[0]


def guesses(text: str) -> list[str]:
    plain = " ".join(text.lower().split())
    return [phrase for phrase in PHRASES if re.search(rf"(?<![\w-]){re.escape(phrase)}(?![\w-])", plain)]


def test_no_message_help_text_or_module_docstring_makes_a_reader_guess():
    found = [(path, *text) for path in FILES for text in texts(path)] + list(helped())
    assert len(found) > 5000
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {phrases[0]}: {text.strip()[:80]}"
        for path, line, text in found
        if (phrases := guesses(text)) and path.relative_to(ROOT).as_posix() not in STORED
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "page",
    [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))],
    ids=lambda path: path.name,
)
def test_no_page_makes_a_reader_guess(page: Path):
    lines = page.read_text(encoding="utf-8").splitlines()
    wrong = [f"{number}: {found[0]}: {line[:100]}" for number, line in enumerate(lines, 1) if (found := guesses(line))]
    assert page.name == "benchmarks.md" or wrong == []
