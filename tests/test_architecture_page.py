"""docs/design/architecture.md names every room of the package, and nothing that does not exist."""

from __future__ import annotations

import re

import pytest

from tests.helpers.project import ROOT

PAGE = (ROOT / "docs" / "design" / "architecture.md").read_text(encoding="utf-8")
PACKAGE = ROOT / "colbuild"
ROOMS = sorted(
    f"{path.parent.relative_to(PACKAGE).as_posix()}/" for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE
)
DRAWING = PAGE.split("```")[1]
NAMED = sorted(
    set(re.findall(r"`((?:[\w.]+/)+[\w.]*)`", PAGE))
    | set(re.findall(r"(?:^| )((?:[a-z]+/)+(?:[a-z_]+\.py)?)(?=[ :])", DRAWING, re.MULTILINE))
)
"""Paths in code spans and in the drawing."""


@pytest.mark.parametrize("named", NAMED)
def test_every_file_and_room_that_the_page_names_exists(named):
    assert named.startswith("out/") or any((base / named).exists() for base in (ROOT, PACKAGE))


def test_the_page_has_a_row_for_every_room():
    table = PAGE.split("## The rooms")[1].split("## Recipes")[0]
    rows = {
        name for line in table.splitlines() if line.startswith("| `") for name in re.findall(r"`([a-z_/]+/)`", line)
    }
    assert rows == set(ROOMS)


def test_the_path_and_its_text_name_every_room_of_the_first_level():
    path = PAGE.split("## The rooms")[0]
    missing = [room for room in ROOMS if room.count("/") == 1 and f"{room}" not in path]
    assert missing == []


@pytest.mark.parametrize(
    "extension",
    [
        "a kind of step",
        "an architecture",
        "a loss",
        "a field of a recipe",
        "a precision",
        "a source scheme",
        "a client",
    ],
)
def test_there_is_a_recipe_for_every_extension(extension):
    assert f"### Add {extension}\n" in PAGE
