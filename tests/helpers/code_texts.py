"""The texts that a module's code holds: what tests scan for names that belong to a table."""

from __future__ import annotations

import ast
import re

from tests.helpers.project import ROOT


def named_in_code(pattern: re.Pattern[str]) -> dict[str, set[str]]:
    """Module -> what matches a pattern in its texts; docstrings and descriptions of fields are left out."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "colbuild").rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        if pattern.search(source) and (words := {word for text in _texts(source) for word in pattern.findall(text)}):
            found[str(path.relative_to(ROOT))] = words
    return found


def _texts(source: str) -> list[str]:
    tree = ast.parse(source)
    told: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):
            told.add(id(node.value))
        elif isinstance(node, ast.keyword) and node.arg == "description":
            told |= {id(part) for part in ast.walk(node.value)}
    every = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in told)
    return [node.value for node in every if isinstance(node.value, str)]
