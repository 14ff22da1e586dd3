"""Files of a project have bounds, which are told: of kind, size, depth, counts and mistakes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from colbuild.errors import SpecError
from colbuild.spec import load_family
from tests.fuzz.kinds.spec import DRIVERS
from tests.spec.projects import project

FAMILY, RECIPE = "specs/family.yaml", "recipes/distill.yaml"


def refused(root: Path) -> str:
    with pytest.raises(SpecError) as caught:
        load_family(root / FAMILY)
    return caught.value.message


@pytest.mark.parametrize("name", [FAMILY, RECIPE])
def test_a_pipe_and_a_huge_file_are_refused_by_kind_and_bound(tmp_path: Path, name: str) -> None:
    project(tmp_path)
    root = tmp_path
    (root / name).unlink()
    os.mkfifo(root / name)
    assert "it is not a regular file" in refused(root)
    (root / name).unlink()
    with (root / name).open("wb") as file:
        file.truncate(10_000_000_000)
    assert "larger than 1.0 MB, the limit" in refused(root)


@pytest.mark.parametrize(
    ("case", "told"),
    [
        ("recipes in a row", "more than 32 recipes extend one another"),
        ("many unknown keys", "a mapping has more than 1,000 keys"),
        ("many anchors", "a list has more than 1,000 values"),
        ("many profiles", "the family has more than 10,000 exports"),
        ("many mistakes in a line", "100 are shown"),
        ("a key too long", "unknown key"),
    ],
)
def test_each_bound_is_told(tmp_path: Path, case: str, told: str) -> None:
    driver = DRIVERS[0]
    seeds, given = tmp_path / "seeds", tmp_path / "given"
    seeds.mkdir()
    given.mkdir()
    driver.cases[case](driver.start(seeds), given)
    message = refused(given)
    assert told in message
    assert len(message) < 300_000
