"""Formats of text, one row each; and the format of a source, from the names of its files.

A new format is a row of `FORMATS` and a module that reads it, beside the others in `colbuild.fetch.texts.formats`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

AUTO: Final = "auto"
"""Neither the spec nor a name tells the format: the corpus step looks at the files, see `colbuild.fetch.texts.choose`."""

TEXT: Final = "text"
JSONL: Final = "jsonl"
MEDIAWIKI: Final = "mediawiki"


@dataclass(frozen=True)
class TextFormat:
    """A format of text.

    Attributes:
        name: As specs write it.
        suffixes: What the names of its files end with.
        reader: The module that reads it, imported when it is needed: `read` takes a `Reading` and gives documents, and `peek`,
            where there is one, reads less than a document to find out early whether the files can be read.
        check: What to look at when no text is found.
        fields: Whether its records have fields, one of which is named by `text`.
        columns: Whether it is stored by columns: it is then read at places of its own, in pieces of many rows.
        magic: What its files begin with, if they all do.
        called: What a message calls its files.
    """

    name: str
    suffixes: frozenset[str]
    reader: str
    check: str
    fields: bool = True
    columns: bool = False
    magic: tuple[bytes, ...] = ()
    called: str = ""


_READERS: Final = "colbuild.fetch.texts.formats"
_COLUMN: Final = "'text' names the column with the text"
_ROWS: Final = (
    TextFormat(
        TEXT,
        frozenset((".txt", ".text", ".md")),
        f"{_READERS}.plain_text",
        "the files hold only blank lines",
        fields=False,
    ),
    TextFormat(
        JSONL,
        frozenset((".jsonl", ".ndjson", ".json")),
        f"{_READERS}.jsonl",
        "'text' names the field with the text",
    ),
    TextFormat(
        "parquet",
        frozenset((".parquet", ".pq")),
        f"{_READERS}.parquet",
        _COLUMN,
        columns=True,
        magic=(b"PAR1",),
        called="a Parquet file",
    ),
    TextFormat(
        "arrow",
        frozenset((".arrow",)),
        f"{_READERS}.arrow",
        _COLUMN,
        columns=True,
        magic=(b"ARROW1", b"\xff\xff\xff\xff"),
        called="an Arrow file",
    ),
    TextFormat("csv", frozenset((".csv", ".tsv")), f"{_READERS}.delimited", _COLUMN),
    TextFormat(
        MEDIAWIKI,
        frozenset((".xml",)),
        f"{_READERS}.mediawiki",
        "only pages of the main namespace are read, without redirects",
        fields=False,
    ),
)

FORMATS: Final[Mapping[str, TextFormat]] = {row.name: row for row in _ROWS}
"""By name, in the order in which messages and schemas list them."""

COMPRESSED: Final = frozenset((".gz", ".bz2", ".xz", ".zst", ".lz4"))
# The first bytes of Wikipedia dumps, known by these names to everybody who compresses text.
_DUMPS: Final = frozenset({"enwik8", "enwik9"})


def detect_format(source_uri: str) -> str:
    """The format of the text behind a source, read off the name of what its URI points to; "auto" if that does not tell."""
    return format_of_name(PurePosixPath(source_uri.split("://", 1)[-1]).name) or AUTO


def format_of_name(name: str) -> str | None:
    """The format of a file, by its name; None if that does not tell.

    Compression suffixes are looked through: `pages.xml.bz2` is a MediaWiki dump.
    """
    path = PurePosixPath(name.lower())
    while path.suffix in COMPRESSED:
        path = path.with_suffix("")
    # Wikimedia numbers the parts of a dump behind the suffix: enwiki-pages-articles1.xml-p1p41242.bz2
    if path.name in _DUMPS or ".xml-p" in path.name:
        return MEDIAWIKI
    return next((row.name for row in FORMATS.values() if path.suffix in row.suffixes), None)


def suffix_of(name: str) -> str:
    """A file's suffix in lower case, that of its compression looked through."""
    path = PurePosixPath(name.lower())
    return PurePosixPath(path.stem).suffix if path.suffix in COMPRESSED else path.suffix
