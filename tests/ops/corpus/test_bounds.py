"""A text has bounds of document, page and compression, which are told; damage of any kind is one kind of error."""

from __future__ import annotations

import gzip
import io
import struct

import pyarrow as pa
import pytest

from colbuild.fetch.texts import raw_files as files
from colbuild.fetch.texts.formats import delimited, jsonl, mediawiki
from colbuild.fetch.texts.formats.wikitext import plain_text
from tests.ops.corpus.helpers import WIKI_START, failure, wiki, wiki_page

FILES = frozenset({"file"})


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        (
            "a.jsonl",
            '{"text": "' + "ab " * 400 + '"}\n{"text": "b"}\n',
            "a line of more than 1,000 characters, the limit",
        ),
        (
            "a.jsonl",
            '{"text": "a", "n": ' + "9" * 900 + "0" * 5000 + "}",
            "a line of more than 1,000 characters, the limit",
        ),
        ("a.json", '[{"text": "' + "ab " * 400, "element 1 is longer than 1,000 characters, the limit"),
        ("a.csv", "id,text\n1," + "ab " * 400 + "\n", "field larger than field limit (1000)"),
        ("a.csv", "text" + ",a" * 100, "the first line, which names the columns, has more than 100 characters"),
    ],
)
def test_a_record_has_a_bound_that_is_told(tmp_path, monkeypatch, name, content, told):
    monkeypatch.setattr(jsonl, "DOCUMENT_CHARACTERS", 1000)
    monkeypatch.setattr(delimited, "DOCUMENT_CHARACTERS", 1000)
    monkeypatch.setattr(delimited, "COLUMN_NAMES", 100)
    (tmp_path / name).write_text(content)
    form = "csv" if name.endswith("csv") else "jsonl"
    assert told in failure(tmp_path / name, tmp_path / "out", format=form).message


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_a_number_of_too_many_digits_is_named(tmp_path, name):
    record = '{"text": "a", "n": ' + "9" * 5000 + "}"
    (tmp_path / name).write_text(f"[{record}]" if name == "a.json" else record)
    assert "a number with too many digits" in failure(tmp_path / name, tmp_path / "out", format="jsonl").message


@pytest.mark.parametrize("form", ["text", "jsonl", "parquet", "arrow"])
def test_a_bomb_is_refused_by_its_ratio(tmp_path, monkeypatch, form):
    monkeypatch.setattr(files, "TEXT_SPARE", 1000)
    monkeypatch.setattr(files, "TEXT_RATIO", 100)
    start = {"parquet": b"PAR1", "arrow": b"ARROW1"}.get(form, b"a")
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(start + b" a" * 1_000_000))
    told = failure(tmp_path / "bomb.gz", tmp_path / "out", format=form).message
    assert "unpacks to more than 100 times its size, the limit" in told


def test_pages_tags_and_namespaces_of_a_dump_have_bounds(tmp_path, monkeypatch):
    for name in ("ARTICLE_CHARACTERS", "XML_TOKEN", "NAMESPACES"):
        monkeypatch.setattr(mediawiki, name, 1000)
    many = "".join(f"<namespace key='6'>n{number}</namespace>" for number in range(1001))
    for number, (content, told) in enumerate(
        (
            (wiki(wiki_page("A", "ab " * 400)), "a page of more than 1,000 characters"),
            (WIKI_START + "<page><title>" + "ab " * 400, "a page of more than 1,000 characters"),
            (WIKI_START + "<" + "a" * 300_000, "a tag of more than 1,000 bytes"),
            ("<mediawiki>" + many, "more than 1,000 namespaces"),
        )
    ):
        path = tmp_path / f"{number}.xml"
        path.write_text(content)
        assert told in failure(path, tmp_path / f"out{number}", format="mediawiki").message


@pytest.mark.parametrize("text", ["{" * 20_000 + " b " + "}" * 20_000, ("\n" + "*#:;" * 9) * 5000])
def test_markup_that_is_nested_without_end_yields_no_text_at_once(text):
    assert plain_text(f"a {text}", FILES) == ""


def test_the_names_of_a_deep_record_are_told_in_short(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a":' * 900 + "1" + "}" * 900)
    told = failure(tmp_path / "a.jsonl", tmp_path / "out", format="jsonl").message
    assert "there is no field 'text'" in told
    assert len(told) < 400


def test_an_offset_beyond_an_arrow_file_is_damage(tmp_path):
    held = io.BytesIO()
    with pa.ipc.new_stream(held, pa.schema([("text", pa.string())])) as writer:
        writer.write_batch(pa.record_batch({"text": ["one", "two", "three"]}))
    content = held.getvalue()
    offsets = struct.pack("<4i", 0, 3, 6, 11)
    assert offsets in content
    path = tmp_path / "c.arrow"
    path.write_bytes(content.replace(offsets, struct.pack("<4i", 0, 3, 1 << 30, 11)))
    assert "cannot be read as Arrow" in failure(path, tmp_path / "out", format="arrow").message
