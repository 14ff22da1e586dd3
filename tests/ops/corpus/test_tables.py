"""JSON arrays, CSV, Arrow, and Parquet files as other tools leave them."""

from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pytest
from pyarrow import parquet

from colbuild.fetch.texts.formats import json_array
from colbuild.fetch.texts.formats import parquet as parquet_reader
from colbuild.fetch.texts.reading import Reading
from tests.helpers.tiny import tiny_documents
from tests.ops.corpus.helpers import build, failure, packed_texts

RECORDS = [{"text": text, "id": i, "meta": {"lang": "en"}} for i, text in enumerate(tiny_documents(40))]


def read_json(tmp_path, content, **params):
    raw = tmp_path / "c.json"
    raw.write_text(content)
    return packed_texts(build(raw, tmp_path / "out", format="jsonl", **params))


# -- JSON arrays ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("chunk", [7, 1 << 18])
def test_an_array_of_objects_is_read_as_json_lines_are(tmp_path, monkeypatch, indent, chunk):
    monkeypatch.setattr("colbuild.fetch.texts.raw_files.CHUNK", chunk)
    assert read_json(tmp_path, "\n " + json.dumps(RECORDS, indent=indent) + "\n") == tiny_documents(40)


def test_an_array_is_read_element_by_element(tmp_path):
    path = tmp_path / "c.json"
    path.write_text('[{"text": "one"}, {"text": "two"}, broken')
    found = json_array.elements(path, 100)
    assert [next(found)[1]["text"] for _ in range(2)] == ["one", "two"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"text": "a"}, {"text": "b"', "is truncated: it ends inside its JSON array"),
        ('[{"text": "a"}, {"text": "b', "is truncated: it ends inside its JSON array"),
        ('[{"text": "a"},', "is truncated: it ends inside its JSON array"),
        ('[{"text": "a"} {"text": "b"}]', "broken JSON: '{' in the place of ','"),
        ('[{"text": "a", oops: 1, "more": "' + "x" * 50 + '"}]', "broken JSON: element 1: Expecting property name"),
        ('[{"text": "a"}] []', "continues after the end of its array"),
        ('["a", "b"]', "element 1: not a JSON object"),
        ("[" * 100_000, "nested too deeply"),
        ('[{"content": "a"}]', "element 1: there is no field 'text'; the fields there are: content"),
    ],
)
def test_a_broken_array_says_where(tmp_path, content, message):
    raw = tmp_path / "c.json"
    raw.write_text(content)
    assert message in failure(raw, tmp_path / "out", format="jsonl").message


def test_an_element_that_fills_the_memory_is_refused(tmp_path):
    path = tmp_path / "c.json"
    path.write_text('[{"text": "' + "x" * 1000)
    with pytest.raises(Exception, match="element 1 is longer than 100 characters"):
        next(json_array.elements(path, 100))


def test_a_line_that_fills_the_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("colbuild.fetch.texts.formats.jsonl.DOCUMENT_CHARACTERS", 100)
    raw = tmp_path / "c.jsonl"
    raw.write_text(json.dumps({"data": ["x"] * 100}))
    assert "a line of more than 100 characters" in failure(raw, tmp_path / "out", format="jsonl").message


def test_objects_over_several_lines_get_a_way_out(tmp_path):
    raw = tmp_path / "c.json"
    raw.write_text(json.dumps(RECORDS[0], indent=2))
    assert "jq -c" in failure(raw, tmp_path / "out", format="jsonl").hint


def test_a_last_line_that_is_cut_off_is_told_as_such(tmp_path):
    raw = tmp_path / "c.jsonl"
    raw.write_text('{"text": "a"}\n{"text": "b')
    error = failure(raw, tmp_path / "out", format="jsonl")
    assert f"{raw}:2:" in error.message
    assert "get the file again, or remove its last line" in error.hint


# -- CSV --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("c.csv", 'id,text\n1,one\n2,"two, and\nmore ""quoted"""\n3,\n\n'),
        ("c.csv", '\ufeffid;text\r\n1;one\r\n2;"two, and\r\nmore ""quoted"""\r\n'),
        ("c.tsv", 'id\ttext\n1\tone\n2\t"two, and\nmore ""quoted"""\n'),
        ("c.tsv", 'text\none\n"two, and\nmore ""quoted"""\n'),
    ],
)
def test_csv_reads_the_column_that_the_first_line_names(tmp_path, name, content):
    raw = tmp_path / name
    raw.write_text(content, newline="")
    assert packed_texts(build(raw, tmp_path / "out", format="csv")) == ["one", 'two, and\nmore "quoted"']


def test_a_long_value_of_csv_is_whole(tmp_path):
    raw = tmp_path / "c.csv.gz"
    raw.write_bytes(gzip.compress(("text\n" + "word " * 100_000).encode()))
    assert packed_texts(build(raw, tmp_path / "out", format="csv")) == ["word " * 100_000]


@pytest.mark.parametrize(
    ("content", "message", "hint", "key"),
    [
        ("id,body\n1,a\n", ":1: there is no column 'text'; the columns there are: body, id", "text: body", "text"),
        ("id,text\n1,a,b\n", ":2: the row has 3 values, and the first line names 2 columns", "quotation", "format"),
        ('id,text\n1,"a" b\n', ":2: broken CSV", "quotation", "format"),
        ('id,text\n1,"a\n2,b\n', ":3: broken CSV: unexpected end of data", "quotation", "format"),
    ],
)
def test_broken_csv_says_where(tmp_path, content, message, hint, key):
    raw = tmp_path / "c.csv"
    raw.write_text(content)
    error = failure(raw, tmp_path / "out", format="csv")
    assert f"{raw}{message}" in error.message
    assert hint in error.hint
    assert error.key == key


# -- Arrow and Parquet ------------------------------------------------------------------------------------------------


def write_arrow(path, table, *, stream):
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=9)
    return path


@pytest.mark.parametrize("stream", [True, False])
def test_arrow_files_and_streams_are_read(tmp_path, monkeypatch, stream):
    monkeypatch.setattr("colbuild.fetch.texts.formats.arrow._HELD", 100)
    table = pa.table({"id": list(range(41)), "text": [*tiny_documents(40), None]})
    raw = write_arrow(tmp_path / "c", table, stream=stream)
    assert packed_texts(build(raw, tmp_path / "out", format="arrow")) == tiny_documents(40)
    raw.write_bytes(gzip.compress(raw.read_bytes()))
    assert packed_texts(build(raw, tmp_path / "packed", format="arrow")) == tiny_documents(40)


def test_a_cut_off_or_wrong_arrow_file_is_told(tmp_path):
    raw = write_arrow(tmp_path / "c", pa.table({"text": tiny_documents(40)}), stream=True)
    raw.write_bytes(raw.read_bytes()[:-700])
    assert "cannot be read as Arrow" in failure(raw, tmp_path / "a", format="arrow").message
    raw.write_text("text")
    assert "is not an Arrow file" in failure(raw, tmp_path / "b", format="arrow").message


COLUMNS = pa.table({
    "text": pa.array([["a"], ["b"]]),
    "n": [1, 2],
    "doc": [{"body": "one", "n": 1}, {"body": "two", "n": 2}],
    "raw": pa.array([b"a", b"b"]),
    "kind": pa.array(["x", "y"]).dictionary_encode(),
})  # fmt: skip


@pytest.mark.parametrize(
    ("field", "message", "hint"),
    [
        ("text", "the column 'text' holds a list, not text", "text: doc.body"),
        ("n", "the column 'n' holds a number, not text", "text: doc.body"),
        ("doc", "the column 'doc' holds a record, not text", "text: doc.body"),
        ("raw", "the column 'raw' holds bytes, not text", "text: doc.body"),
        ("doc.text", "no column 'doc.text'; the columns there are: doc.body, doc.n, kind, n, raw, text", "doc.body"),
        ("n.body", "no column 'n.body'", "doc.body"),
    ],
)
@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_a_column_that_is_no_text_is_refused_by_name(tmp_path, form, field, message, hint):
    raw = tmp_path / "c"
    if form == "parquet":
        parquet.write_table(COLUMNS, raw)
    else:
        write_arrow(raw, COLUMNS, stream=True)
    error = failure(raw, tmp_path / "out", format=form, text=field)
    assert message in error.message
    assert hint in error.hint
    assert error.key == "text"


@pytest.mark.parametrize(("field", "expected"), [("doc.body", ["one", "two"]), ("kind", ["x", "y"])])
@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_columns_inside_columns_and_encoded_ones_are_read(tmp_path, form, field, expected):
    raw = tmp_path / "c"
    if form == "parquet":
        parquet.write_table(COLUMNS, raw)
    else:
        write_arrow(raw, COLUMNS, stream=False)
    assert packed_texts(build(raw, tmp_path / "out", format=form, text=field)) == expected


def test_a_shard_without_rows_is_no_text(tmp_path):
    folder = tmp_path / "c"
    folder.mkdir()
    parquet.write_table(pa.table({}), folder / "a.parquet")
    parquet.write_table(pa.table({"text": pa.array([], pa.null())}), folder / "b.parquet")
    parquet.write_table(pa.table({"text": pa.array([None, None], pa.null())}), folder / "c.parquet")
    parquet.write_table(pa.table({"text": pa.array(["one"], pa.large_string())}), folder / "d.parquet")
    assert packed_texts(build(folder, tmp_path / "out", format="parquet")) == ["one"]


def test_parquet_is_decoded_some_rows_at_a_time_and_one_column_only(tmp_path, monkeypatch):
    table = pa.table({"text": [f"{i} " * 1000 for i in range(500)], "other": ["x" * 1000] * 500})
    parquet.write_table(table, tmp_path / "c.parquet")
    seen = []
    texts = parquet_reader.column_texts
    monkeypatch.setattr(parquet_reader, "column_texts", lambda batch, *rest: seen.append(batch) or texts(batch, *rest))
    reading = Reading((tmp_path / "c.parquet",), "text", tmp_path)
    assert list(parquet_reader.read(reading)) == table["text"].to_pylist()
    assert {tuple(batch.schema.names) for batch in seen} == {("text",)}
    assert max(batch.num_rows for batch in seen) <= 64


# -- what is no text --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n", "is a Git LFS pointer"),
        ("some text".encode("utf-16-le"), "is binary, or UTF-16 text"),
        (b"x" * 257 + b"ustar\0" + b"y" * 100, "is a tar archive"),
    ],
)
def test_files_that_only_look_like_text_are_refused(tmp_path, data, message):
    raw = tmp_path / "c"
    raw.write_bytes(data)
    for form in ("text", "jsonl", "csv"):
        assert message in failure(raw, tmp_path / form, format=form).message
    raw.write_bytes(gzip.compress(data))
    assert message in failure(raw, tmp_path / "packed", format="text").message


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_a_pointer_in_the_place_of_a_table_is_told(tmp_path, form):
    raw = tmp_path / "c"
    raw.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n")
    assert "is a Git LFS pointer" in failure(raw, tmp_path / "out", format=form).message
