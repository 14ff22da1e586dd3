"""Plain text, JSON lines and Parquet; compression; encodings."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from colbuild.fetch.texts.formats.plain_text import LONGEST, documents
from colbuild.fetch.texts.raw_files import lines, pieces
from tests.helpers.tiny import tiny_documents
from tests.ops.corpus.helpers import build, failure, packed_texts


def by_arrow(codec):
    return lambda data: pa.compress(data, codec=codec, asbytes=True)


PACKERS = [gzip.compress, bz2.compress, lzma.compress, by_arrow("zstd"), by_arrow("lz4")]


def texts(source):
    return [text for text in documents(source.splitlines(keepends=True)) if text]


# -- text -------------------------------------------------------------------------------------------------------------


def test_text_is_split_at_two_blank_lines_and_at_form_feeds_only():
    source = "a\n\nstill a\n\n\nb\n \n\t\nc\n\f\nd\fd\n"
    assert texts(source) == ["a\n\nstill a", "b", "c", "d\fd"]


def test_huge_paragraph_becomes_many_documents_and_loses_nothing(tmp_path):
    words = " ".join(f"word{i}" for i in range(60_000))
    raw = tmp_path / "c.txt"
    raw.write_text(words)
    found = [text for text in documents(lines(raw, LONGEST)) if text]
    assert len(found) > 5
    assert max(map(len, found)) <= LONGEST
    assert " ".join(found) == words


def test_single_line_without_spaces_is_cut_too(tmp_path):
    raw = tmp_path / "c.txt"
    raw.write_text("ä" * 300_000)
    found = [text for text in documents(lines(raw, LONGEST)) if text]
    assert "".join(found) == "ä" * 300_000
    assert max(map(len, found)) <= LONGEST


@pytest.mark.parametrize("longest", [1, 2, 7, 50])
def test_pieces_join_to_the_whole(longest):
    text = "one two\nthree  four\n\nfive" * 9
    found = list(pieces(text, longest))
    assert "".join(found) == text
    assert max(map(len, found)) <= longest


def test_windows_line_ends_and_byte_order_mark_are_not_text(tmp_path):
    raw = tmp_path / "c.txt"
    raw.write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n\r\n\r\nthree\r\n")
    assert packed_texts(build(raw, tmp_path / "out")) == ["one\ntwo", "three"]


def test_lines_are_whole_across_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr("colbuild.fetch.texts.raw_files.CHUNK", 5)
    source = "".join(f"lïne {i} ☃\r\n" for i in range(50)) + "no end"
    raw = tmp_path / "c.txt"
    raw.write_bytes(source.encode())
    assert "".join(lines(raw)) == source.replace("\r\n", "\n")


# -- compression and encodings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("compress", PACKERS)
def test_compression_is_told_by_content_not_by_name(tmp_path, compress):
    raw = tmp_path / "c.txt"
    raw.write_bytes(compress("\n\n\n".join(tiny_documents(9)).encode()))
    assert packed_texts(build(raw, tmp_path / "out")) == tiny_documents(9)


@pytest.mark.parametrize("compress", PACKERS)
def test_cut_off_compressed_text_is_an_error(tmp_path, compress):
    raw = tmp_path / "c.txt"
    raw.write_bytes(compress("\n\n\n".join(tiny_documents()).encode())[:-20])
    error = failure(raw, tmp_path / "out")
    assert "truncated" in error.message
    assert str(raw) in error.message


@pytest.mark.parametrize("compress", PACKERS[:3])
def test_damaged_compressed_text_is_an_error(tmp_path, compress):
    data = bytearray(compress("\n\n\n".join(tiny_documents()).encode()))
    data[len(data) // 2 : len(data) // 2 + 9] = b"\xff" * 9
    raw = tmp_path / "c.txt"
    raw.write_bytes(bytes(data))
    assert "damaged" in failure(raw, tmp_path / "out").message


def test_unsupported_compression_is_named(tmp_path):
    raw = tmp_path / "c.txt"
    raw.write_bytes(b"PK\x03\x04" + b"x" * 50)
    assert "zip" in failure(raw, tmp_path / "out").message


def test_not_utf8_names_file_and_offset(tmp_path, monkeypatch):
    monkeypatch.setattr("colbuild.fetch.texts.raw_files.CHUNK", 7)
    raw = tmp_path / "c.txt"
    raw.write_bytes("äöü and more text ".encode() + b"\xff\xfe rest")
    error = failure(raw, tmp_path / "out")
    assert f"{raw} is not UTF-8 text: byte 0xff at offset 21" in error.message


def test_text_that_ends_inside_a_character_is_not_utf8(tmp_path):
    raw = tmp_path / "c.txt"
    raw.write_bytes("schön".encode()[:-2])
    assert "not UTF-8" in failure(raw, tmp_path / "out").message


def test_utf16_is_recognised(tmp_path):
    raw = tmp_path / "c.txt"
    raw.write_bytes("hello".encode("utf-16"))
    assert "UTF-16" in failure(raw, tmp_path / "out").message


# -- jsonl ------------------------------------------------------------------------------------------------------------


def write_jsonl(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_jsonl_reads_a_field_inside_a_field(tmp_path):
    raw = write_jsonl(tmp_path / "c", [{"doc": {"body": "one"}}, {"doc": {"body": "two"}}, {"doc": None}])
    assert packed_texts(build(raw, tmp_path / "out", format="jsonl", text="doc.body")) == ["one", "two"]


def test_jsonl_field_whose_name_has_a_dot_is_found(tmp_path):
    raw = write_jsonl(tmp_path / "c", [{"a.b": "one"}])
    assert packed_texts(build(raw, tmp_path / "out", format="jsonl", text="a.b")) == ["one"]


def test_jsonl_keeps_text_as_it_is_and_skips_blank_ones(tmp_path):
    raw = write_jsonl(tmp_path / "c", [{"text": "  a\n\n\n\nb \n"}, {"text": " \n"}, {"text": None}, {"text": "c"}])
    raw.write_text(raw.read_text().replace("\n", "\n\n"))
    assert packed_texts(build(raw, tmp_path / "out", format="jsonl")) == ["  a\n\n\n\nb \n", "c"]


def test_jsonl_half_of_a_surrogate_pair_is_replaced(tmp_path):
    raw = tmp_path / "c"
    raw.write_text(r'{"text": "a \ud83d b \ud83d\ude00"}')
    assert packed_texts(build(raw, tmp_path / "out", format="jsonl")) == ["a ? b \U0001f600"]


def test_missing_field_names_those_that_exist(tmp_path):
    raw = write_jsonl(tmp_path / "c", [{"content": "x", "id": 1}])
    error = failure(raw, tmp_path / "out", format="jsonl")
    assert f"{raw}:1: there is no field 'text'; the fields there are: content, id" in error.message


def test_field_that_holds_no_text_says_what_it_holds(tmp_path):
    raw = write_jsonl(tmp_path / "c", [{"text": ["a"]}])
    assert "holds a list, not text" in failure(raw, tmp_path / "out", format="jsonl").message


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "b"', ":2:13: broken JSON"),
        ('["text"]', ":2: not a JSON object"),
        ("[" * 100_000, ":2: broken JSON: nested too deeply"),
    ],
)
def test_broken_json_names_file_and_line(tmp_path, line, message):
    raw = tmp_path / "c.jsonl"
    raw.write_text('{"text": "a"}\n' + line + "\n")
    assert f"{raw}{message}" in failure(raw, tmp_path / "out", format="jsonl").message


# -- parquet ----------------------------------------------------------------------------------------------------------


def write_parquet(path, **columns):
    parquet.write_table(pa.table(columns), path, row_group_size=10)
    return path


def test_parquet_reads_the_column_whatever_the_file_is_called(tmp_path):
    raw = write_parquet(tmp_path / "odd [1]*?", body=[*tiny_documents(35), None], id=list(range(36)))
    assert packed_texts(build(raw, tmp_path / "out", format="parquet", text="body")) == tiny_documents(35)


def test_parquet_reads_a_field_inside_a_column_and_compressed_files(tmp_path):
    plain = write_parquet(tmp_path / "c.parquet", m=[{"t": "one"}, {"t": "two"}])
    raw = tmp_path / "packed"
    raw.write_bytes(gzip.compress(plain.read_bytes()))
    assert packed_texts(build(raw, tmp_path / "out", format="parquet", text="m.t")) == ["one", "two"]


def test_parquet_limit_does_not_read_what_comes_after(tmp_path):
    raw = write_parquet(tmp_path / "c.parquet", text=tiny_documents(2000))
    data = bytearray(raw.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 2000] = b"\xff" * 2000
    raw.write_bytes(bytes(data))
    assert "cannot be read as Parquet" in failure(raw, tmp_path / "all", format="parquet").message
    out = build(raw, tmp_path / "out", format="parquet", limit=2000)
    assert packed_texts(out)[:2] == tiny_documents(2)


def test_parquet_leaves_nothing_in_the_home_folder(tmp_path, monkeypatch):
    raw = write_parquet(tmp_path / "c.parquet", text=tiny_documents(20))
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    cache = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    before = sorted(cache.rglob("*")) if cache.exists() else []
    out = build(raw, tmp_path / "out", format="parquet")
    assert (sorted(cache.rglob("*")) if cache.exists() else []) == before
    assert not list(home.rglob("*"))
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_parquet_missing_column_names_those_that_exist(tmp_path):
    raw = write_parquet(tmp_path / "c.parquet", body=["a"], id=[1])
    error = failure(raw, tmp_path / "out", format="parquet")
    assert "there is no column 'text'; the columns there are: body, id" in error.message
    assert error.hint == "did you mean 'text: body'?"
    assert error.key == "text"


def test_file_of_another_format_is_recognised(tmp_path):
    plain = tmp_path / "c.txt"
    plain.write_text("just text")
    assert "is not a Parquet file" in failure(plain, tmp_path / "a", format="parquet").message
    assert "not a MediaWiki XML dump" in failure(plain, tmp_path / "b", format="mediawiki").message
    assert "broken JSON" in failure(plain, tmp_path / "c", format="jsonl").message
    rows = write_parquet(tmp_path / "c.parquet", text=["a"])
    for form in ("text", "jsonl"):
        error = failure(rows, tmp_path / f"d{form}", format=form)
        assert "is a Parquet file" in error.message
        assert "format: parquet" in error.hint


def test_cut_off_parquet_is_a_clear_error(tmp_path):
    raw = write_parquet(tmp_path / "c.parquet", text=tiny_documents(200))
    raw.write_bytes(raw.read_bytes()[:-500])
    assert "cannot be read as Parquet" in failure(raw, tmp_path / "out", format="parquet").message
