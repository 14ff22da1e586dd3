"""Which files of a folder are a corpus, and what their format is."""

from __future__ import annotations

import bz2
import gzip
import json
import shutil

import pyarrow as pa
import pytest
from pyarrow import parquet

from colbuild.errors import SourceError
from colbuild.fetch.texts.choose import choose
from colbuild.fetch.texts.sniff import sniff
from tests.ops.corpus.helpers import build, failure, packed_texts

LINE = json.dumps({"text": "one"}) + "\n"


def fill(folder, **files):
    """Writes files; "__" in a keyword stands for "/", and a "." is spelled as "_dot_"."""
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def names(folder, globs=(), form="auto"):
    found = choose(folder, form, globs)
    return found.format, [path.relative_to(folder).as_posix() for path in found.files]


def table_bytes(texts=("one",)):
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table({"text": list(texts)}), sink)
    return sink.getvalue().to_pybytes()


# -- one format -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "form"),
    [
        ("a.jsonl", LINE.encode(), "jsonl"),
        ("a.jsonl.gz", gzip.compress(LINE.encode(), mtime=0), "jsonl"),
        ("a.json.bz2", bz2.compress(LINE.encode()), "jsonl"),
        ("a.json", b'[{"text": "one"}]', "jsonl"),
        ("a.ndjson", LINE.encode(), "jsonl"),
        ("a.parquet", table_bytes(), "parquet"),
        ("a.csv", b"text\none\n", "csv"),
        ("a.tsv.gz", gzip.compress(b"id\ttext\n1\tone\n", mtime=0), "csv"),
        ("a.txt", b"one", "text"),
        ("a.md", b"one", "text"),
        ("deep/er/a.text", b"one", "text"),
        ("part-00000", LINE.encode(), "jsonl"),
        ("AA/wiki_00", b"one", "text"),
        ("0a1b2c", table_bytes(), "parquet"),
    ],
)
def test_a_folder_is_read_as_what_its_files_are(tmp_path, name, content, form):
    folder = tmp_path / "data"
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_bytes(content)
    fill(
        folder,
        README_dot_md="# About",
        _dot_hidden_dot_csv="x",
        _SUCCESS="",
        LICENSE="mine",
        dataset_infos_dot_json="{}",
    )
    assert names(folder) == (form, [name])
    assert packed_texts(build(folder, tmp_path / "out", format="auto")) == ["one"]


def test_markdown_beside_data_describes_it_and_alone_is_the_text(tmp_path):
    folder = fill(tmp_path / "c", data__a_dot_jsonl=LINE, docs__method_dot_md="m", CITATION_dot_cff="c")
    assert names(folder) == ("jsonl", ["data/a.jsonl"])
    book = fill(tmp_path / "b", one_dot_md="1", two__three_dot_md="3", README_dot_md="r")
    assert names(book) == ("text", ["one.md", "two/three.md"])
    only = fill(tmp_path / "o", README_dot_md="r")
    assert names(only) == ("text", ["README.md"])


def test_text_and_markdown_are_one_format(tmp_path):
    folder = fill(tmp_path / "c", a_dot_txt="a", b_dot_md="b", license_dot_txt="l")
    assert names(folder) == ("text", ["a.txt", "b.md"])


def test_descriptions_are_no_json_lines(tmp_path):
    folder = fill(tmp_path / "c", a_dot_json=LINE, dataset_infos_dot_json='{"default": {}}')
    assert names(folder, form="jsonl") == ("jsonl", ["a.json"])


@pytest.mark.parametrize("other", ["b_dot_parquet", "b_dot_csv", "b_dot_txt"])
def test_several_formats_are_refused_with_the_way_out(tmp_path, other):
    folder = fill(tmp_path / "c", **{other: "x"}, a_dot_jsonl=LINE, c_dot_jsonl=LINE)
    with pytest.raises(SourceError) as caught:
        names(folder)
    assert "2 of format jsonl (a.jsonl, c.jsonl)" in caught.value.message
    assert f"({other.replace('_dot_', '.')})" in caught.value.message
    assert caught.value.hint == "choose files: 'files: \"*.jsonl*\"', or name the format: 'format: jsonl'"
    assert names(folder, ["*.jsonl*"])[1] == ["a.jsonl", "c.jsonl"]
    assert names(folder, form="jsonl")[1] == ["a.jsonl", "c.jsonl"]


# -- one file ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "form"),
    [
        (LINE, "jsonl"),
        ("\ufeff" + LINE, "jsonl"),
        ('{"text": "one"}', "jsonl"),
        ("\n" + LINE, "jsonl"),
        ('{"text": "' + "x" * (2 << 20), "jsonl"),
        ('[\n  {\n    "text"', "jsonl"),
        ('{\n  "text": "one"\n}', "jsonl"),
        ('<?xml version="1.0"?>\n<mediawiki xml:lang="en">', "mediawiki"),
        ("{ this is how a play begins", "text"),
        ("{1} a footnote\n{2} another\n", "text"),
        ("[Enter HAMLET]\n", "text"),
        ("plain", "text"),
        ("{" + "x" * (2 << 20), "text"),
        ("", None),
    ],
)
def test_a_file_of_unknown_name_is_told_by_its_first_bytes(tmp_path, content, form):
    path = tmp_path / "file"
    path.write_text(content, encoding="utf-8")
    assert sniff(path) == form
    path.write_bytes(gzip.compress(content.encode()))
    assert sniff(path) == form


# -- splits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "test", "glob"),
    [
        ("data/train-00000-of-00002.parquet", "data/test-00000-of-00001.parquet", "train-*"),
        ("train.jsonl", "validation.jsonl", "train*"),
        ("train/a.jsonl", "test/a.jsonl", "train/*"),
        ("wiki.train.tokens", "wiki.valid.tokens", "*train*"),
        ("en/train/0.csv", "en/dev/0.csv", "en/train/*"),
        ("name-train.arrow", "name-test.arrow", "*train*"),
    ],
)
def test_splits_in_one_folder_are_refused_with_a_glob_that_chooses_train(tmp_path, train, test, glob):
    for name in (train, test):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    for form in ("auto", "text"):
        with pytest.raises(SourceError, match=r"holds several splits.*: .*train \(1 file\)") as caught:
            choose(tmp_path, form)
        assert f"'files: \"{glob}\"'" in caught.value.hint
        assert caught.value.key == "files"
    chosen = choose(tmp_path, "auto", [glob])
    assert [path.relative_to(tmp_path).as_posix() for path in chosen.files] == [train]
    assert len(choose(tmp_path, "auto", ["*"]).files) == 2


@pytest.mark.parametrize("other", ["extra.txt", "the test of time.txt", "trains/a.txt", "latest-1.txt"])
def test_names_that_are_no_splits_are_read_together(tmp_path, other):
    for name in ("train.txt", other):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    assert len(choose(tmp_path, "auto").files) == 2


# -- folders that the hub's libraries made ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A dataset and a dictionary of datasets, as `save_to_disk` leaves them."""
    from datasets import Dataset, DatasetDict

    folder = tmp_path_factory.mktemp("saved")
    train, test = (Dataset.from_dict({"text": [f"{name} {i}" for i in range(5)]}) for name in ("train", "test"))
    train.save_to_disk(folder / "one", num_shards=2)
    DatasetDict(train=train, test=test).save_to_disk(folder / "dict")
    DatasetDict(en=train, de=test).save_to_disk(folder / "languages")
    return folder


def test_a_saved_dataset_is_read(tmp_path, saved):
    folder = tmp_path / "one"
    shutil.copytree(saved / "one", folder)
    (folder / "cache-0123.arrow").write_bytes(b"left by a computation")
    texts = packed_texts(build(folder, tmp_path / "out", format="auto"))
    assert texts == [f"train {i}" for i in range(5)]


@pytest.mark.parametrize(("name", "split", "other"), [("dict", "train", "test"), ("languages", "de", "en")])
def test_of_a_saved_dictionary_a_split_is_chosen(tmp_path, saved, name, split, other):
    error = failure(saved / name, tmp_path / "a", format="auto")
    assert f"{split} (1 file)" in error.message
    assert f"{other} (1 file)" in error.message
    out = build(saved / name, tmp_path / "out", format="auto", files=[f"{split}/*"])
    assert len(packed_texts(out)) == 5


def test_a_dataset_saved_with_indices_is_refused(tmp_path, saved):
    folder = tmp_path / "one"
    shutil.copytree(saved / "one", folder)
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(state | {"_indices_files": [{"filename": "indices.arrow"}]}))
    assert "flatten_indices" in failure(folder, tmp_path / "out", format="auto").hint


def test_a_snapshot_of_links_is_read_and_the_cache_around_it_is_not(tmp_path):
    cache = fill(tmp_path / "datasets--org--name", blobs__0a1b=LINE, refs__main="abc")
    (cache / "snapshots" / "abc").mkdir(parents=True)
    (cache / "snapshots" / "abc" / "train.jsonl").symlink_to(cache / "blobs" / "0a1b")
    assert packed_texts(build(cache / "snapshots" / "abc", tmp_path / "out", format="auto")) == ["one"]
    assert "snapshots/<commit>" in failure(cache, tmp_path / "cache", format="auto").hint


def test_globs_that_match_nothing_say_what_is_there(tmp_path):
    folder = fill(tmp_path / "c", a_dot_txt="a", b_dot_txt="b")
    error = failure(folder, tmp_path / "out", format="auto", files=["train-*"])
    assert "no file matches 'files: train-*'" in error.message
    assert error.hint == "available files: a.txt, b.txt"
