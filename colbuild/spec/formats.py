"""What kind of text a source holds, from its name alone."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Final, Literal

TextFormat = Literal["text", "jsonl", "parquet", "mediawiki"]

_COMPRESSED: Final = frozenset({".gz", ".bz2", ".xz", ".zst"})
_BY_SUFFIX: Final[dict[str, TextFormat]] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".xml": "mediawiki",
}
# The first bytes of Wikipedia dumps, known by these names to everybody who compresses text.
_DUMPS: Final = frozenset({"enwik8", "enwik9"})


def detect_format(source_uri: str) -> TextFormat:
    """The format of the text behind a source, read off the name of what its URI points to.

    Compression suffixes are looked through: `pages.xml.bz2` is a MediaWiki dump. What is not recognised is plain text.
    """
    name = PurePosixPath(source_uri.split("://", 1)[-1]).name.lower()
    path = PurePosixPath(name)
    while path.suffix in _COMPRESSED:
        path = path.with_suffix("")
    if path.name in _DUMPS:
        return "mediawiki"
    # Wikimedia numbers the parts of a dump behind the suffix: enwiki-pages-articles1.xml-p1p41242.bz2
    if ".xml-p" in path.name:
        return "mediawiki"
    return _BY_SUFFIX.get(path.suffix, "text")
