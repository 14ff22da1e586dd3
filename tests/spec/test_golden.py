"""Whole reports, as a person reads them: each folder in golden/ is a project with mistakes and its report."""

from __future__ import annotations

from pathlib import Path

import pytest

from colbuild.errors import SpecError
from colbuild.spec import load_family

CASES = sorted(path.parent for path in (Path(__file__).parent / "golden").glob("*/report.txt"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_report_tells_every_mistake_of_every_file(case):
    with pytest.raises(SpecError) as caught:
        load_family(case / "specs/family.yaml")
    assert caught.value.message + "\n" == (case / "report.txt").read_text(encoding="utf-8")


def test_there_are_cases():
    assert len(CASES) >= 3


def test_the_documented_report_is_the_real_one():
    documented = (Path(__file__).parents[2] / "docs/spec.md").read_text(encoding="utf-8")
    assert (Path(__file__).parent / "golden/typo/report.txt").read_text(encoding="utf-8") in documented
