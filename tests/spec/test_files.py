"""`files`: which files of a source are read."""

from __future__ import annotations

import pytest

from colbuild.spec.sources.choice import chosen, split_files, with_files
from tests.spec.projects import family, load, problems

NAMES = [
    "README.md",
    "data/en/train-0.jsonl",
    "data/en/test-0.jsonl",
    "data/train/0.jsonl",
    "train-1.jsonl",
    "a[1].txt",
]
TRAIN = "{source: ./corpus.jsonl, "


@pytest.mark.parametrize(
    ("globs", "expected"),
    [
        ([], NAMES),
        (["*"], NAMES),
        (["train-*"], ["data/en/train-0.jsonl", "train-1.jsonl"]),
        (["data/en/*"], ["data/en/train-0.jsonl", "data/en/test-0.jsonl"]),
        (["data/*"], ["data/en/train-0.jsonl", "data/en/test-0.jsonl", "data/train/0.jsonl"]),
        (["data/train"], ["data/train/0.jsonl"]),
        (["train"], ["data/train/0.jsonl"]),
        (["en/"], ["data/en/train-0.jsonl", "data/en/test-0.jsonl"]),
        (["*.md", "train-?.jsonl"], ["README.md", "data/en/train-0.jsonl", "train-1.jsonl"]),
        (["a[[]1].txt"], ["a[1].txt"]),
        (["train"[:3]], []),
    ],
)
def test_a_glob_matches_a_name_a_path_or_a_folder(globs, expected):
    assert chosen(NAMES, globs) == expected


def test_source_and_choice_are_one_text_and_come_apart_again():
    text = with_files("./a b", ["x*", "y/z"])
    assert split_files(text) == ("./a b", ("x*", "y/z"))
    assert with_files("./a", None) == "./a"
    assert split_files("./a") == ("./a", ())


def test_one_glob_or_a_list_may_be_written_and_eval_takes_trains(tmp_path):
    for written in ("train-*", "[train-*]"):
        loaded = load(tmp_path, specs__family=family(TRAIN, f"{{source: ./corpus, files: {written}, "))
        assert loaded.family.data.train.files == ("train-*",)
        assert loaded.family.data.eval.content == "./corpus#files=train-*"


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        ("{source: ./corpus, files: §'a,b', ", "item 1 of 'files': 'a,b' has a ',' = write a list: [train-*, extra-*]"),
        ("{source: ./corpus, files: [x, §/abs/*], ", "item 2 of 'files': '/abs/*' is not a path inside the source"),
        ("{source: ./corpus, files: [§../x], ", "item 1 of 'files': '../x' is not a path inside the source"),
        ("{source: ./corpus, §files: '', ", "item 1 of 'files': '' names no file"),
        ("{source: ./corpus, files: §[], ", "'files' is empty = write at least one"),
        ("{source: ./corpus, files: §3, ", "'files' must be"),
        ("{source: §'./corpus#files=x', ", "'source': '#files=' is not allowed in a source = write the choice"),
        ("{generate: §{tokens: 1k}, files: x, ", "'files' belongs to a source, and this text is generated = remove it"),
    ],
)
def test_mistakes_in_files_are_told_at_their_place(tmp_path, new, expected):
    before = family(TRAIN, new).split("§")[0].split("\n")
    only = problems(tmp_path, specs__family=family(TRAIN, new.replace("§", "")))[0]
    assert only.startswith(f"specs/family.yaml:{len(before)}:{len(before[-1]) + 1}: {expected}")
