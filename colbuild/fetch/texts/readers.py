"""The formats of a corpus: a new format is a module with a `read`, an entry here and its suffixes in `spec.sources.formats`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from colbuild.fetch.texts.formats import arrow, delimited, jsonl, mediawiki, parquet
from colbuild.fetch.texts.formats import plain_text as text
from colbuild.fetch.texts.reading import Reader, Reading
from colbuild.spec.sources.formats import TextFormat


@dataclass(frozen=True)
class Format:
    """How a format is read.

    Attributes:
        read: From files to documents.
        check: What to look at when no text is found.
        peek: Reads a little of the first files, to find out early whether they can be read; by default a document.
    """

    read: Reader
    check: str
    peek: Callable[[Reading], object] | None = None


FORMATS: Final[Mapping[TextFormat, Format]] = {
    "text": Format(text.read, "the files hold only blank lines"),
    "jsonl": Format(jsonl.read, "'text' names the field with the text"),
    "parquet": Format(parquet.read, "'text' names the column with the text"),
    "arrow": Format(arrow.read, "'text' names the column with the text"),
    "csv": Format(delimited.read, "'text' names the column with the text"),
    "mediawiki": Format(mediawiki.read, "only pages of the main namespace are read, without redirects", mediawiki.peek),
}
