"""A source's scheme is one row of `SCHEMES`: a row that a test adds is read, planned, fetched, pinned and locked."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest

from colbuild.errors import EXIT_SPEC_ERROR, SourceUnavailableError
from colbuild.fetch.contents import is_fetched
from colbuild.fetch.fetching import Pin, fetch
from colbuild.fetch.local import Place, existing
from colbuild.progress import Report
from colbuild.spec.project.schema import family_schema
from colbuild.spec.sources.grammar import check_source
from colbuild.spec.sources.schemes import SCHEMES, Scheme, beginnings_pattern
from colbuild.spec.sources.source_kinds import Source
from tests.helpers.code_texts import named_in_code
from tests.helpers.project import ROOT, replace_in

SPEC = "specs/tiny.yaml"


@dataclass(frozen=True)
class Shelf(Source):
    """Something on a shelf, by its name."""

    name: str

    @property
    def file_name(self) -> str:
        return self.name


def parse(text: str, row: Scheme) -> Shelf:
    if not row.rest(text).isidentifier():
        raise ValueError(f"'{row.rest(text)}' is not a name; write {row.example}")
    return Shelf(row.rest(text))


SHELF: Path | None = None
"""What the readers below read."""

FETCHED: list[str] = []


def get(
    source: Shelf, globs: Sequence[str], target: Path, origin: Mapping[str, str], report: Report
) -> Mapping[str, str]:
    """Reads the remote scheme."""
    assert SHELF is not None
    FETCHED.append(source.name)
    found = SHELF / source.name
    if not found.exists():
        raise SourceUnavailableError(f"the shelf has no '{source.name}'")
    (shutil.copytree if found.is_dir() else shutil.copyfile)(found, target)
    return {"shelf": "top"}


def place(uri: str, source: Shelf, root: Path) -> Place:
    """Reads the scheme of this machine."""
    assert SHELF is not None
    return existing(Place(uri, SHELF / source.name, None))


FAR = Scheme("test", ("test://",), ("test://name",), parse, __name__, remote=True, nicknames=("tset",))
NEAR = Scheme("near", ("near://",), ("near://name",), parse, __name__)


@pytest.fixture
def shelf(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shelf with the inputs of the project, which names them by the schemes of this file."""
    for row in (FAR, NEAR):
        monkeypatch.setitem(SCHEMES, row.name, row)
    monkeypatch.setattr(import_module(__name__), "SHELF", tmp_path / "shelf")
    FETCHED.clear()
    (project / ".tiny").rename(tmp_path / "shelf")
    (tmp_path / "shelf" / "corpus.txt").rename(tmp_path / "shelf" / "words")
    replace_in(project / SPEC, "./.tiny/ansnet", "test://ansnet")
    replace_in(project / SPEC, "source: ./.tiny/corpus.txt", "source: near://words, format: text")
    return tmp_path / "shelf"


def test_schemes_that_are_added_are_planned_fetched_and_pinned(shelf, project, colbuild):
    locked = colbuild("lock", SPEC)
    assert (locked.code, FETCHED) == (0, ["ansnet"]), locked.err
    sources = json.loads((project / "specs/tiny.lock").read_text())["sources"]
    assert sources["test://ansnet"]["origin"] == {"shelf": "top"}
    planned = colbuild("plan", SPEC)
    assert "lock: up to date" in planned.out
    assert planned.code == 0
    assert FETCHED == ["ansnet"], "what was fetched is kept"

    # What lies on this machine is the user's to edit; what comes over a network is what was locked.
    (shelf / "words").write_text((shelf / "words").read_text() + "More words.\n")
    assert "lock: out of date: near://words" in colbuild("plan", SPEC).out
    (shelf / "ansnet" / "config.json").write_text("{}")
    pin = Pin(sources["test://ansnet"]["digest"], {}, "the lock")
    with pytest.raises(SourceUnavailableError, match="test://ansnet does not match the lock: "):
        fetch("test://ansnet", root=project, downloads=project / "downloads", pin=pin)


def test_mistakes_in_a_scheme_that_is_added_are_told_at_their_place(shelf, project, colbuild):
    replace_in(project / SPEC, "test://ansnet", "tset:ansnet")
    assert "did you mean 'test://ansnet'?" in colbuild("plan", SPEC).err
    replace_in(project / SPEC, "tset:ansnet", "test://a/b")
    ran = colbuild("plan", SPEC)
    assert ran.code == EXIT_SPEC_ERROR
    assert "'a/b' is not a name" in ran.err
    assert "write test://name" in ran.err
    replace_in(project / SPEC, "test://a/b", "nothing://x")
    assert "hf://datasets/org/name@revision[/file], test://name or near://name" in colbuild("plan", SPEC).err
    replace_in(project / SPEC, "nothing://x", "near://missing")
    assert "near://missing does not exist" in colbuild("plan", SPEC).err


def test_the_json_schema_knows_a_scheme_that_is_added(shelf):
    assert "|hf://|test://|near://)." in json.dumps(family_schema())


@pytest.mark.parametrize("row", SCHEMES.values(), ids=lambda row: row.name)
def test_a_row_fits_together(row):
    """Each form is a source of the scheme, and its reader has the function that its kind needs."""
    for form in row.forms:
        text = re.sub(r"\[.*?\]", "", form).replace("==version", "==1.0")
        assert check_source(text) == text
        assert re.match(beginnings_pattern() + ".", text)
        assert is_fetched(text) == row.remote
    assert callable(getattr(import_module(row.reader), "get" if row.remote else "place"))


def test_the_documentation_has_a_row_for_each_form():
    page = (ROOT / "docs/sources.md").read_text(encoding="utf-8")
    table = page[page.index("| source |") : page.index("\n\n", page.index("| source |"))]
    assert re.findall(r"^\| `(.+?)` \|", table, re.MULTILINE) == [
        form for row in SCHEMES.values() for form in row.forms
    ]


def test_no_module_but_the_table_writes_a_scheme():
    beginnings = [begin for row in SCHEMES.values() for begin in row.begins if "://" in begin]
    named = named_in_code(re.compile("|".join(beginnings)))
    assert named == {"colbuild/spec/sources/schemes.py": set(beginnings)}
