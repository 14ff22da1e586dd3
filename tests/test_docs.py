"""The documentation says what is there: links lead somewhere, generated pages are current, commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from colbuild.spec import load_family
from tests.benchmarks.page import PAGE, page
from tests.helpers.project import ROOT

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
_LINK = re.compile(r"\]\((?!https?://)([^)#\s]+)")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_to_a_file(path: Path):
    missing = [link for link in _LINK.findall(path.read_text(encoding="utf-8")) if not (path.parent / link).exists()]
    assert missing == []


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_into_a_page_leads_to_a_heading(path: Path):
    links = re.findall(r"\]\((?!https?://)([^)#\s]*)#([^)\s]+)\)", path.read_text(encoding="utf-8"))
    assert [link for link in links if link[1] not in anchors(path.parent / link[0] if link[0] else path)] == []


def test_benchmark_page_is_the_generated_one():
    assert PAGE.read_text(encoding="utf-8") == page()


def test_readme_has_exactly_the_two_set_up_lines():
    lines = [line.strip() for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()]
    assert [line for line in lines if line.startswith("pip install -c constraints.txt")] == [
        "pip install -c constraints.txt -e . && colbuild build",
        'pip install -c constraints.txt -e ".[test]" && pytest',
    ]


def test_constraints_pin_every_dependency():
    pinned = {
        line.split("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().splitlines()
    }
    wanted = re.findall(
        r'^  "([A-Za-z0-9_-]+)[><=]', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(wanted) > 20
    assert [name for name in wanted if name.lower().replace("_", "-") not in pinned] == []


@pytest.mark.parametrize("spec", sorted((ROOT / "specs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_committed_spec_is_valid(spec: Path):
    assert load_family(spec).family.desnets
