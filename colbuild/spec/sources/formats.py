"""Formats of text and what their files are called: the format behind a source, as far as names tell it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Final, Literal

TextFormat = Literal["text", "jsonl", "parquet", "arrow", "csv", "mediawiki"]

AUTO: Final = "auto"
"""Neither the spec nor a name tells the format: the corpus step looks at the files, see `colbuild.fetch.texts.choose`."""

SUFFIXES: Final[Mapping[TextFormat, frozenset[str]]] = {
    "text": frozenset((".txt", ".text", ".md")),
    "jsonl": frozenset((".jsonl", ".ndjson", ".json")),
    "parquet": frozenset((".parquet", ".pq")),
    "arrow": frozenset((".arrow",)),
    "csv": frozenset((".csv", ".tsv")),
    "mediawiki": frozenset((".xml",)),
}
COMPRESSED: Final = frozenset((".gz", ".bz2", ".xz", ".zst", ".lz4"))
_BY_SUFFIX: Final = {suffix: form for form, suffixes in SUFFIXES.items() for suffix in suffixes}

# The first bytes of Wikipedia dumps, known by these names to everybody who compresses text.
_DUMPS: Final = frozenset({"enwik8", "enwik9"})


def detect_format(source_uri: str) -> TextFormat | Literal["auto"]:
    """The format of the text behind a source, read off the name of what its URI points to; "auto" if that does not tell."""
    return format_of_name(PurePosixPath(source_uri.split("://", 1)[-1]).name) or AUTO


def format_of_name(name: str) -> TextFormat | None:
    """The format of a file, by its name; None if that does not tell.

    Compression suffixes are looked through: `pages.xml.bz2` is a MediaWiki dump.
    """
    path = PurePosixPath(name.lower())
    while path.suffix in COMPRESSED:
        path = path.with_suffix("")
    # Wikimedia numbers the parts of a dump behind the suffix: enwiki-pages-articles1.xml-p1p41242.bz2
    if path.name in _DUMPS or ".xml-p" in path.name:
        return "mediawiki"
    return _BY_SUFFIX.get(path.suffix)


def suffix_of(name: str) -> str:
    """A file's suffix in lower case, that of its compression looked through."""
    path = PurePosixPath(name.lower())
    return PurePosixPath(path.stem).suffix if path.suffix in COMPRESSED else path.suffix
