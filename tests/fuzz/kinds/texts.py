"""Texts of every format, damaged and compressed without end, as `plan` peeks into them and the corpus step packs them."""

from __future__ import annotations

import bz2
import gc
import gzip
import io
import json
import lzma
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final

from colbuild.errors import BuildError
from tests.fuzz.frame import Driver
from tests.fuzz.mutate import ODD_VALUES, deep_json, mutated_bytes, mutated_json
from tests.helpers.steps import run_step

Case = Callable[[Path, Path], None]
LIMIT: Final = 200_000
"""Bytes of text that a trial packs: honest files beyond it are read in part, as `limit` says."""


def _start(folder: Path) -> Path:
    import colbuild.fetch.texts.formats.wikitext_workers
    from tests.helpers.tiny import make_tiny_tokenizer

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    colbuild.fetch.texts.formats.wikitext_workers.cores = lambda: 1  # type: ignore[assignment]
    make_tiny_tokenizer(folder / "tokenizer")
    for name, write in _WARM.items():
        # What is imported late: a trial that is forked has it.
        (folder / "warm").mkdir()
        write(folder, folder / "warm")
        with suppress(BuildError):
            _attempt(name, None, folder, folder / "warm")
        shutil.rmtree(folder / "warm")
    gc.freeze()  # Else a trial looks through all that was imported, again and again.
    return folder


def _attempt(form: str, limit: int | None, seeds: Path, folder: Path) -> None:
    from colbuild.fetch.fetching import fetch
    from colbuild.fetch.texts.peek import peek
    from colbuild.fetch.texts.text_size import text_size

    [name] = [path.name for path in folder.iterdir()]
    downloads = folder / "downloads"
    raw = fetch(f"./{name}", root=folder, downloads=downloads).path
    text_size(f"./{name}", form, (), root=folder, downloads=downloads)
    peek(raw, form, "text")
    output = folder / "output"
    output.mkdir()
    params = {"format": form, "text": "text", "limit": limit, "heldout": 0.1}
    run_step("corpus", {"raw": raw, "tokenizer": seeds / "tokenizer"}, params, output)


def _documents(random: Random) -> list[str]:
    from tests.helpers.tiny import tiny_documents

    return tiny_documents(random.randrange(1, 30), random.randrange(1000))


def _make_text(_seeds: Path, random: Random, folder: Path) -> None:
    text = "\n\n\n".join(_documents(random)).encode()
    (folder / "corpus.txt").write_bytes(mutated_bytes(random, text))


def _make_jsonl(_seeds: Path, random: Random, folder: Path) -> None:
    records = [{"text": text, "meta": {"n": 1}} for text in _documents(random)]
    lines = [mutated_json(random, one) if random.random() < 0.2 else json.dumps(one).encode() for one in records]
    (folder / "corpus.jsonl").write_bytes(b"\n".join(lines))


def _make_array(_seeds: Path, random: Random, folder: Path) -> None:
    content = mutated_json(random, [{"text": text} for text in _documents(random)])
    (folder / "corpus.json").write_bytes(content)


def _make_csv(_seeds: Path, random: Random, folder: Path) -> None:
    rows = ["id,text", *(f'{number},"{text}"' for number, text in enumerate(_documents(random)))]
    (folder / "corpus.csv").write_bytes(mutated_bytes(random, "\n".join(rows).encode()))


def _make_parquet(_seeds: Path, random: Random, folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    held = io.BytesIO()
    codec = random.choice(("none", "snappy", "gzip", "zstd", "lz4"))
    texts = _documents(random)
    pyarrow.parquet.write_table(pa.table({"text": texts, "n": list(range(len(texts)))}), held, compression=codec)
    (folder / "corpus.parquet").write_bytes(_at_ends(random, held.getvalue()))


def _make_arrow(_seeds: Path, random: Random, folder: Path) -> None:
    import pyarrow as pa

    held, table = io.BytesIO(), pa.table({"text": _documents(random)})
    opener = random.choice((pa.ipc.new_file, pa.ipc.new_stream))
    with opener(held, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)
    (folder / "corpus.arrow").write_bytes(_at_ends(random, held.getvalue()))


def _at_ends(random: Random, content: bytes) -> bytes:
    """Damage, mostly at a table's ends, where its schema and its places are."""
    cut = random.choice((0, len(content) - 400, len(content) - 2000))
    where = max(0, min(cut, len(content)))
    if random.random() < 0.3:
        return mutated_bytes(random, content[:1000]) + content[1000:]
    return content[:where] + mutated_bytes(random, content[where:])


def _make_dataset(_seeds: Path, random: Random, folder: Path) -> None:
    """A folder as `datasets` saves it, its descriptions damaged."""
    import pyarrow as pa

    data = folder / "data"
    data.mkdir()
    table = pa.table({"text": _documents(random)})
    with pa.ipc.new_stream(str(data / "data-00000-of-00001.arrow"), table.schema) as writer:
        writer.write_table(table)
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_indices_files": [], "_split": "train"}
    (data / "state.json").write_bytes(mutated_json(random, state))
    (data / "dataset_dict.json").write_bytes(mutated_json(random, {"splits": ["train", "test"]}))
    (data / "dataset_info.json").write_bytes(mutated_json(random, {"features": {"text": {"dtype": "string"}}}))


def _zstd(data: bytes) -> bytes:
    return _by_arrow("zstd", data)


def _by_arrow(codec: str, data: bytes) -> bytes:
    import pyarrow as pa

    held = pa.BufferOutputStream()
    with pa.CompressedOutputStream(held, codec) as stream:
        stream.write(data)
    return bytes(held.getvalue().to_pybytes())


_COMPRESSED: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": _zstd,
    "lz4": partial(_by_arrow, "lz4"),
}


def _make_compressed(_seeds: Path, random: Random, folder: Path) -> None:
    suffix = random.choice(sorted(_COMPRESSED))
    content = _COMPRESSED[suffix]("\n\n\n".join(_documents(random)).encode())
    (folder / f"corpus.txt.{suffix}").write_bytes(mutated_bytes(random, content))


_START: Final = (
    '<mediawiki version="0.10"><siteinfo><namespaces><namespace key="6">File</namespace></namespaces></siteinfo>'
)
_MARKUP: Final = (
    "[[", "]]", "{{", "}}", "{|", "|}", "|", "'''", "''", "<ref>", "</ref>", "<!--", "-->", "[http://x ", "]", "==", "\n", "*",
    "<nowiki>", "</nowiki>", "{{{", "}}}", "<div>", "</div>", "&#x1F600;", "&lt;", ":", ";", "text", " ", "<br/>", "<math>",
    "[[File:", "<table>", "----", "{{{!", "<b", "\u202e", "#REDIRECT",
)  # fmt: skip


def _page(text: str) -> str:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;")
    return f"<page><title>A</title><ns>0</ns><revision><text>{escaped}</text></revision></page>\n"


def _make_wiki(_seeds: Path, random: Random, folder: Path) -> None:
    pages = []
    for text in _documents(random)[:4]:
        pieces = [random.choice(_MARKUP) * random.choice((1, 1, 1, 2, 30)) for _ in range(random.randrange(200))]
        place = random.randrange(len(text))
        pages.append(_page(text[:place] + "".join(pieces) + text[place:]))
    content = (_START + "".join(pages) + "</mediawiki>").encode()
    (folder / "corpus.xml").write_bytes(mutated_bytes(random, content) if random.random() < 0.3 else content)


# -- what the issue names ---------------------------------------------------------------------------------------------


def _file(name: str, *pieces: bytes | tuple[bytes, int]) -> Case:
    """A file of pieces, some of which come many times."""

    def case(_seeds: Path, folder: Path) -> None:
        with (folder / name).open("wb") as file:
            for piece in pieces:
                data, times = piece if isinstance(piece, tuple) else (piece, 1)
                block = data * min(times, 1000)
                for _ in range(max(1, times // 1000)):
                    file.write(block)

    return case


def _bomb(suffix: str, name: str, size: int, unit: bytes = b"\0", before: bytes = b"", after: bytes = b"") -> Case:
    """A compressed file of `size` bytes that are alike."""

    def case(_seeds: Path, folder: Path) -> None:
        (folder / f"{name}.{suffix}").write_bytes(_squeezed(suffix, _alike(size, unit, before, after)))

    return case


def _alike(size: int, unit: bytes, before: bytes, after: bytes) -> Iterator[bytes]:
    block = unit * ((1 << 20) // len(unit))
    yield before
    for _ in range(size >> 20):
        yield block
    yield after


def _squeezed(suffix: str, blocks: Iterator[bytes]) -> bytes:
    held = io.BytesIO()
    if suffix == "gz":
        with gzip.GzipFile(fileobj=held, mode="wb", compresslevel=1) as stream:
            stream.writelines(blocks)
        return held.getvalue()
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, {"zst": "zstd"}.get(suffix, suffix)) as packed:
        for block in blocks:
            packed.write(block)
    return bytes(sink.getvalue().to_pybytes())


def _pipe_in_folder(name: str, _seeds: Path, folder: Path) -> None:
    (folder / "data").mkdir()
    os.mkfifo(folder / "data" / name)


def _special(name: str) -> Mapping[str, Case]:
    return {
        f"{name} is a pipe": lambda _, folder: os.mkfifo(folder / name),
        f"{name} is a device": lambda _, folder: (folder / name).symlink_to("/dev/zero"),
        f"{name} is a pipe in a folder": partial(_pipe_in_folder, name),
        f"{name} is empty": lambda _, folder: (folder / name).touch(),
    }


_MEGABYTE: Final = 1 << 20
_TEXT_CASES: Final[Mapping[str, Case]] = {
    **_special("corpus.txt"),
    "one line": _file("corpus.txt", (b"a" * 1000, 5_000)),
    "line ends": _file("corpus.txt", (b"\n", 1_000_000)),
    "returns": _file("corpus.txt", (b"\r", 1_000_000)),
    "one document": _file("corpus.txt", (b"ab cd\n" * 100, 5_000)),
    "spaces": _file("corpus.txt", (b" " * 1000, 5_000)),
    "form feeds": _file("corpus.txt", (b"\f\n", 500_000)),
    "marks that combine": _file("corpus.txt", ("a\u0301\u0301".encode() * 100, 5_000)),
    "half of a character": _file("corpus.txt", b"\xe2\x98"),
}
_JSONL_CASES: Final[Mapping[str, Case]] = {
    **_special("corpus.jsonl"),
    "a large document": _file("corpus.jsonl", b'{"text": "', (b"ab cd ef gh " * 80, 40_000), b'"}\n'),
    "a line without end": _file("corpus.jsonl", b'{"text": "a"}\n{"text": "', (b"a" * 1000, 40_000)),
    "a field that is no text": _file("corpus.jsonl", b'{"text": [', (b"[],", 1_000_000), b'[]], "n": 1}\n'),
    "many fields": _file("corpus.jsonl", b"{", (b'"a": {},', 1_000_000), b'"b": 1}\n'),
    "deep": _file("corpus.jsonl", deep_json(100_000)),
    "deep in a record": _file("corpus.jsonl", b'{"text": "a", "b": ' + deep_json(100_000) + b"}"),
    "deep records": _file("corpus.jsonl", b'{"a":' * 900 + b"1" + b"}" * 900),
    "a long number": _file("corpus.jsonl", b'{"text": "a", "n": ' + b"9" * 100_000 + b"}"),
    "half a surrogate pair": _file("corpus.jsonl", b'{"text": "a\\ud800 b"}\n{"text": "b"}\n'),
    "a key twice": _file("corpus.jsonl", b'{"text": "a", "text": 7}\n'),
    **{
        f"odd text {number}": _file("corpus.jsonl", json.dumps({"text": value}).encode())
        for number, value in enumerate(ODD_VALUES[:3] + ODD_VALUES[-6:])
    },
}
_ARRAY_CASES: Final[Mapping[str, Case]] = {
    "one large element": _file("corpus.json", b'[{"text": "', (b"ab cd ef gh " * 80, 40_000), b'"}]'),
    "an element without end": _file("corpus.json", b'[{"text": "', (b"a" * 1000, 40_000)),
    "deep": _file("corpus.json", b"[" + deep_json(100_000) + b"]"),
    "a long number": _file("corpus.json", b'[{"text": "a", "n": ' + b"9" * 100_000 + b"}]"),
    "spaces": _file("corpus.json", b"[", (b" " * 1000, 5_000)),
    "an element of many": _file("corpus.json", b"[[", (b"[],", 1_000_000), b"[]]]"),
    "many numbers": _file("corpus.json", b"[", (b"1,", 1_000_000), b"1]"),
}
_CSV_CASES: Final[Mapping[str, Case]] = {
    **_special("corpus.csv"),
    "a quote without end": _file("corpus.csv", b'id,text\n1,"', (b"a b c " * 100 + b"\n", 60_000)),
    "many columns": _file("corpus.csv", b"text", (b",a", 1_000_000), b"\n"),
    "many columns in a row": _file("corpus.csv", b"id,text\n", (b",a", 3_000_000), b"\n"),
    "a header without end": _file("corpus.csv", (b"a" * 1000, 40_000)),
    "a large document": _file("corpus.csv", b'id,text\n1,"', (b"ab cd ef gh " * 80, 40_000), b'"\n'),
    "no text": _file("corpus.csv", b"a,b\n1,2\n"),
    "zeros": _file("corpus.csv", b"id,text\n1,\0\n"),
}
_COMPRESSED_CASES: Final[Mapping[str, Case]] = {
    "gzip of zeros": _bomb("gz", "corpus.txt", 100 * _MEGABYTE),
    "gzip of a line": _bomb("gz", "corpus.txt", 100 * _MEGABYTE, b"a"),
    "gzip of a record": _bomb("gz", "corpus.jsonl", 100 * _MEGABYTE, b"a", b'{"text": "', b'"}'),
    "gzip of an element": _bomb("gz", "corpus.json", 100 * _MEGABYTE, b"a", b'[{"text": "', b'"}]'),
    "gzip of a value": _bomb("gz", "corpus.csv", 100 * _MEGABYTE, b"a", b"id,text\n1,", b"\n"),
    "gzip of blank lines": _bomb("gz", "corpus.txt", 2 * _MEGABYTE, b"\n"),
    "gzip of a page": _bomb("gz", "corpus.xml", 100 * _MEGABYTE, b"a", (_START + "<page><ns>0</ns><text>").encode()),
    "zstd of a line": _bomb("zst", "corpus.txt", 100 * _MEGABYTE, b"a"),
    "zstd of parquet": _bomb("zst", "corpus.parquet", 500 * _MEGABYTE, b"\0", b"PAR1", b"PAR1"),
    "zstd of arrow": _bomb("zst", "corpus.arrow", 500 * _MEGABYTE, b"\0", b"ARROW1"),
    "lz4 of a line": _bomb("lz4", "corpus.txt", 100 * _MEGABYTE, b"a"),
    "gzip in gzip": lambda _, folder: (
        (folder / "corpus.txt.gz").write_bytes(gzip.compress(gzip.compress(b"a b c\n" * 1000))) and None
    ),
}


def _wiki(*texts: str, before: str = "", after: str = "</mediawiki>") -> Case:
    def case(_seeds: Path, folder: Path) -> None:
        (folder / "corpus.xml").write_text(before + _START + "".join(map(_page, texts)) + after, encoding="utf-8")

    return case


_LAUGHS: Final = "<!DOCTYPE a [<!ENTITY a 'x'>" + "".join(
    f"<!ENTITY a{n} '{f'&a{n - 1};' * 10}'>" for n in range(1, 12)
) + "]>"  # fmt: skip
_WIKI_CASES: Final[Mapping[str, Case]] = {
    **_special("corpus.xml"),
    "laughs": _wiki("a", before=_LAUGHS),
    "an external entity": _wiki("a", before="<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]>"),
    "deep elements": _file("corpus.xml", _START.encode(), (b"<a>", 300_000)),
    "many attributes": _file("corpus.xml", b"<mediawiki ", (b"a='b' ", 200_000)),
    "a name without end": _file("corpus.xml", b"<mediawiki><", (b"a" * 1000, 20_000)),
    "a text without end": _file("corpus.xml", _START.encode(), b"<page><text>", (b"a b " * 250, 6_000)),
    "a title without end": _file("corpus.xml", _START.encode(), b"<page><title>", (b"a b " * 250, 6_000)),
    "many namespaces": _file("corpus.xml", b"<mediawiki>", (b"<namespace key='6'>abc</namespace>", 30_000)),
    "a large page": _wiki("ab cd [[ef]] '''gh'''\n" * 200_000),
    "many large pages": _wiki(*["ab cd {{ef}} [http://x y]\n" * 4000] * 4),
    **{
        f"deep {name}": _wiki("a " + opening * 5_000 + " b " + closing * 5_000)
        for name, opening, closing in (
            ("templates", "{{a|", "}}"),
            ("arguments", "{{{a|", "}}}"),
            ("links", "[[a|", "]]"),
            ("tables", "{|\n|\n", "\n|}\n"),
            ("tags", "<div>", "</div>"),
            ("references", "<ref>", "</ref>"),
            ("comments", "<!--", "-->"),
            ("outer links", "[http://a ", "]"),
            ("braces", "{", "}"),
            ("brackets", "[", "]"),
            ("entities", "&amp;", "&lt;"),
            ("quotes", "'''''", "'''"),
            ("headings", "\n==a", "==\n"),
            ("lists", "\n" + "*#:;" * 9, ""),
            ("attributes", "<div a='", "'>"),
            ("nowiki", "<nowiki>", "</nowiki>"),
        )
    },
}


def _column(make: Callable[[Any], Any]) -> Case:
    """A parquet file of one odd column or many."""

    def case(_seeds: Path, folder: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet

        pyarrow.parquet.write_table(make(pa), folder / "corpus.parquet", compression="zstd")

    return case


def _deep_type(pa: Any) -> Any:
    kind = pa.string()
    for _ in range(200):
        kind = pa.struct([("a", kind)])
    return pa.table({"text": pa.array([None], kind)})


_PARQUET_CASES: Final[Mapping[str, Case]] = {
    **_special("corpus.parquet"),
    "alike texts": _column(lambda pa: pa.table({"text": ["a" * 1000] * 30_000})),
    "one large text": _column(lambda pa: pa.table({"text": ["ab cd " * 7_000_000]})),
    "numbers": _column(lambda pa: pa.table({"text": [1, 2]})),
    "nulls": _column(lambda pa: pa.table({"text": pa.nulls(100_000)})),
    "many columns": _column(lambda pa: pa.table({f"c{n}": [1] for n in range(3000)})),
    "deep types": _column(_deep_type),
    "no UTF-8": _column(lambda pa: pa.table({"text": pa.array([b"\xff\xfe"]).view(pa.string())})),
    "a dictionary": _column(lambda pa: pa.table({"text": pa.array(["a b"] * 10).dictionary_encode()})),
    "only its mark": _file("corpus.parquet", b"PAR1"),
    "a footer beyond": _file("corpus.parquet", b"PAR1", b"\xff\xff\xff\x7fPAR1"),
}


_WARM: Final[Mapping[str, Case]] = {
    "parquet": lambda _, folder: _make_parquet(_, Random(0), folder),
    "arrow": lambda _, folder: _make_arrow(_, Random(0), folder),
    "mediawiki": _wiki("a b c"),
}


def _driver(
    kind: str, make: Callable[[Path, Random, Path], None], cases: Mapping[str, Case], form: str = "auto"
) -> Driver:
    return Driver(kind, _start, make, partial(_attempt, form, LIMIT), cases, memory=1_500_000_000)


DRIVERS: Final = (
    _driver("text", _make_text, _TEXT_CASES, "text"),
    _driver("jsonl", _make_jsonl, _JSONL_CASES, "jsonl"),
    _driver("json array", _make_array, _ARRAY_CASES, "jsonl"),
    _driver("csv", _make_csv, _CSV_CASES, "csv"),
    _driver("parquet", _make_parquet, _PARQUET_CASES, "parquet"),
    _driver("arrow", _make_arrow, _special("corpus.arrow"), "arrow"),
    _driver("saved dataset", _make_dataset, {}),
    _driver("compressed text", _make_compressed, _COMPRESSED_CASES),
    _driver("mediawiki", _make_wiki, _WIKI_CASES, "mediawiki"),
)
