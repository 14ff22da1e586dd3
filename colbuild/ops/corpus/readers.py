"""The formats of a corpus: a new one is a module with a `read` and an entry here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from colbuild.ops.corpus import jsonl, mediawiki, parquet, text
from colbuild.ops.corpus.reading import Reader


@dataclass(frozen=True)
class Format:
    """How a format is read.

    Attributes:
        read: From files to documents.
        suffixes: What its files are usually called; tells data from other files in a folder.
        check: What to look at when no text is found.
    """

    read: Reader
    suffixes: frozenset[str]
    check: str


FORMATS: Final = {
    "text": Format(text.read, frozenset((".txt", ".text", ".md")), "the files hold only blank lines"),
    "jsonl": Format(jsonl.read, frozenset((".jsonl", ".ndjson", ".json")), "'text' names the field with the text"),
    "parquet": Format(parquet.read, frozenset((".parquet", ".pq")), "'text' names the column with the text"),
    "mediawiki": Format(
        mediawiki.read, frozenset((".xml",)), "only pages of the main namespace that are no redirects are read"
    ),
}
