"""Texts on this machine are looked at while a build is planned: what cannot be read is told before anything runs."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from pyarrow import parquet

from colbuild.errors import EXIT_DONE, EXIT_SOURCE_UNAVAILABLE, EXIT_SPEC_ERROR
from colbuild.plan.checks import readable_texts as module
from tests.helpers.project import replace_in

SPEC = "specs/tiny.yaml"
TRAIN = "{source: ./.tiny/corpus.txt, heldout: 0.1}"
RECORD = {"content": "a long story", "id": 1, "title": "a"}


def texts(project):
    """A folder for texts in the project."""
    folder = project / "texts"
    folder.mkdir(exist_ok=True)
    return folder


def say(project, train):
    replace_in(project / SPEC, TRAIN, train)


FIELDS = "there is no {noun} 'txet'; the {noun}s there are: content, id, title"


@pytest.mark.parametrize(
    ("name", "content", "noun"),
    [
        ("a.jsonl", json.dumps(RECORD) + "\nbroken", "field"),
        ("a.json", json.dumps([RECORD]), "field"),
        ("a.csv", ",".join(RECORD) + "\na,1,b\n", "column"),
        ("a.parquet", pa.table({key: [value] for key, value in RECORD.items()}), "column"),
    ],
)
def test_a_wrong_field_is_told_by_the_plan_where_the_spec_names_it(project, colbuild, name, content, noun):
    path = texts(project) / name
    if isinstance(content, str):
        path.write_text(content)
    else:
        parquet.write_table(content, path)
    for source in (f"./texts/{name}", "./texts"):
        say(project, f"{{source: {source}, text: txet}}")
        column = 11 + len(f"{{source: {source}, text: ")
        for command in ("plan", "build"):
            ran = colbuild(command, SPEC)
            assert ran.code == EXIT_SPEC_ERROR
            assert f"error: {SPEC}:13:{column - 1}: " in ran.err
            assert FIELDS.format(noun=noun) in ran.err
            assert "did you mean 'text: content'?" in ran.err
        assert not (project / ".colbuild" / "actions").exists(), "nothing was built"
        replace_in(project / SPEC, f"{{source: {source}, text: txet}}", TRAIN)


def test_every_text_that_cannot_be_read_is_told_at_once(project, colbuild):
    for name in ("a.jsonl", "b.jsonl"):
        (texts(project) / name).write_text(json.dumps(RECORD) + "\n")
    say(project, "{source: ./texts/a.jsonl}")
    replace_in(project / SPEC, "eval: {", "eval: {source: ./texts/b.jsonl, text: body, ")
    ran = colbuild("plan", SPEC)
    assert ran.code == EXIT_SPEC_ERROR
    assert "2 texts cannot be read" in ran.err
    # A field that nobody wrote has no place of its own: the source's is told.
    assert f"{SPEC}:13:19: " in ran.err
    assert f"{SPEC}:14:41: " in ran.err


@pytest.mark.parametrize(
    ("files", "train", "place", "told"),
    [
        ({"a.jsonl": "{}", "b.parquet": "x"}, "{source: ./texts}", "13:19", "files of several formats"),
        ({"a.jsonl": "{}", "b.csv": "x"}, "{source: ./texts, format: auto}", "13:36", "files of several formats"),
        ({"train.jsonl": "{}", "test.jsonl": "{}"}, "{source: ./texts}", "13:19", "several splits"),
        (
            {"a.parquet": "version https://git-lfs.github.com/spec/v1\n"},
            "{source: ./texts}",
            "13:19",
            "a Git LFS pointer",
        ),
        ({"a.txt": "a"}, "{source: ./texts, text: body}", "13:34", "names a field"),
        ({"a.txt": "<html>"}, "{source: ./texts, format: mediawiki}", "13:19", "is not a MediaWiki XML dump"),
    ],
)
def test_a_folder_that_is_no_single_text_is_told_by_the_plan(project, colbuild, files, train, place, told):
    for name, content in files.items():
        (texts(project) / name).write_text(content)
    say(project, train)
    ran = colbuild("plan", SPEC)
    assert ran.code == EXIT_SPEC_ERROR
    assert f"error: {SPEC}:{place}: " in ran.err
    assert told in ran.err


def test_a_choice_that_matches_nothing_is_told_where_it_is_written(project, colbuild):
    (texts(project) / "a.txt").write_text("a")
    say(project, "{source: ./texts, files: train-*}")
    ran = colbuild("plan", SPEC)
    assert ran.code == EXIT_SOURCE_UNAVAILABLE
    assert f"error: {SPEC}:13:35: ./texts: no file matches 'files: train-*'" in ran.err
    assert "available files: a.txt" in ran.err


def test_chosen_json_lines_are_trained_on_as_text_and_files_are_locked(project, colbuild, monkeypatch):
    """From a folder with two splits and a README to a corpus of the chosen split's texts alone."""
    lines = (project / ".tiny" / "corpus.txt").read_text().split("\n\n\n")
    for split, documents in (("train", lines[:-20]), ("test", lines[-20:])):
        content = "".join(json.dumps({"text": text}) + "\n" for text in documents)
        (texts(project) / f"{split}-00000-of-00001.jsonl").write_text(content)
    (texts(project) / "README.md").write_text("# About\n")
    (texts(project) / "dataset_infos.json").write_text("{}")
    say(project, "{source: ./texts, files: train-*, heldout: 0.1}")
    assert colbuild("build", SPEC, "--target", "corpus train").code == EXIT_DONE
    meta = next(json.loads(path.read_text()) for path in (project / ".colbuild").rglob("corpus.json"))
    assert sum(split["documents"] for split in meta["splits"].values()) == len(lines) - 20
    assert colbuild("lock", SPEC).code == EXIT_DONE
    assert "./texts#files=train-*" in json.loads((project / "specs" / "tiny.lock").read_text())["sources"]
    # What was not chosen may change.
    (texts(project) / "README.md").write_text("# More\n")
    monkeypatch.setattr(module, "_check_text", lambda *_: pytest.fail("a corpus in the store was looked at"))
    ran = colbuild("plan", SPEC, "--locked", "--json")
    assert next(step for step in json.loads(ran.out)["steps"] if step["id"] == "corpus train")["state"] == "cached"
