"""Articles of a MediaWiki XML dump as plain text. A truncated dump yields its complete pages."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Final
from xml.parsers import expat

from colbuild.bounds import ARTICLE_CHARACTERS, NAMESPACES, XML_TOKEN
from colbuild.errors import BuildError
from colbuild.fetch.texts.raw_files import CutOffError, chunks
from colbuild.fetch.texts.reading import Reading

_REDIRECT: Final = re.compile(r"\s*#redirect\b", re.IGNORECASE)
_WITH_TEXT: Final = frozenset(("title", "ns", "model", "text", "namespace"))
_NO_TEXT: Final = frozenset((-2, 6, 14))
"""Namespaces whose links show no text: media, files, categories."""

_ENGLISH: Final = {
    "media": -2, "special": -1, "talk": 1, "user": 2, "user talk": 3, "wikipedia": 4, "project": 4,
    "wikipedia talk": 5, "project talk": 5, "file": 6, "image": 6, "file talk": 7, "image talk": 7, "mediawiki": 8,
    "mediawiki talk": 9, "template": 10, "template talk": 11, "help": 12, "help talk": 13, "category": 14,
    "category talk": 15, "portal": 100, "portal talk": 101,
}  # fmt: skip
"""What every wiki understands beside the names in its own language."""


def read(reading: Reading) -> Generator[str, None, None]:
    """The text of each article: pages of the main namespace that are no redirects.

    Raises:
        BuildError: A file is no dump, not well-formed before its end, or damaged.
    """
    # What parses wikitext is slow to import, and a plan, which only peeks, does not need it.
    from colbuild.fetch.texts.formats.wikitext_workers import plain_texts

    for path in reading.files:
        dump = _Dump(path)
        articles = dump.articles()
        first = next(articles, None)
        if first is not None:
            # The first page stands after the list of namespaces, so their names are known now.
            yield from plain_texts(_chain(first, articles), dump.file_names())


def peek(reading: Reading) -> None:
    """Reads the first article's wikitext.

    Raises:
        BuildError: The first file is no dump, or damaged before its first article ends.
    """
    next(_Dump(reading.files[0]).articles(), None)


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


class _Dump:
    """A parser of one dump: expat calls `_start`, `_text` and `_end`, which gather the pages that are finished."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._namespaces = dict(_ENGLISH)
        self._ready: list[str] = []
        self._page: dict[str, str] = {}
        self._pieces: list[str] | None = None
        self._size = 0
        self._root = ""
        self._key = 0
        self._parser = expat.ParserCreate()
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._text
        # A dump has no document type. Refusing one refuses every entity, and with them "billion laughs".
        self._parser.StartDoctypeDeclHandler = self._doctype

    def file_names(self) -> frozenset[str]:
        """Case-folded names of the namespaces whose links show no text."""
        return frozenset(name for name, key in self._namespaces.items() if key in _NO_TEXT)

    def articles(self) -> Iterator[str]:
        """The wikitext of each article, as soon as its page has ended."""
        fed = 0
        try:
            for data in chunks(self._path):
                try:
                    # Never told that the end has come: what stands after the last whole page is left alone.
                    self._parser.Parse(data, False)
                except expat.ExpatError as error:
                    raise self._broken(error) from error
                fed += len(data)
                if fed - self._parser.CurrentByteIndex > XML_TOKEN:
                    raise self._beyond(f"a tag of more than {XML_TOKEN:,} bytes")
                yield from self._ready
                self._ready.clear()
        except CutOffError:
            return

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if not self._root:
            self._root = name
            if name != "mediawiki":
                raise self._no_dump(f"its first element is <{name}>")
        if name == "page":
            self._page = {}
        elif name == "redirect":
            self._page["redirect"] = ""
        elif name == "namespace":
            key = attributes.get("key", "")
            self._key = int(key) if key.removeprefix("-").isdecimal() else 0
        if name in _WITH_TEXT:
            self._pieces, self._size = [], 0

    def _text(self, data: str) -> None:
        if self._pieces is None:
            return
        self._pieces.append(data)
        self._size += len(data)
        if self._size > ARTICLE_CHARACTERS:
            raise self._beyond(f"a page of more than {ARTICLE_CHARACTERS:,} characters")

    def _end(self, name: str) -> None:
        if self._pieces is not None and name in _WITH_TEXT:
            content = "".join(self._pieces)
            self._pieces = None
            if name != "namespace":
                # Of a page with its history the last revision stays.
                self._page[name] = content
            elif content:
                self._namespaces[content.casefold()] = self._key
                if len(self._namespaces) > NAMESPACES:
                    raise self._beyond(f"more than {NAMESPACES:,} namespaces")
        if name == "page" and self._is_article():
            self._ready.append(self._page["text"])

    def _is_article(self) -> bool:
        page = self._page
        if "redirect" in page or page.get("model", "wikitext") != "wikitext" or not page.get("text"):
            return False
        if "ns" in page:
            in_main = page["ns"].strip() == "0"
        else:
            # Dumps before export version 0.6 tell the namespace by the title only.
            prefix, colon, _ = page.get("title", "").partition(":")
            in_main = not colon or self._namespaces.get(prefix.strip().casefold(), 0) == 0
        return in_main and _REDIRECT.match(page["text"]) is None

    def _doctype(self, name: str, *_: object) -> None:
        raise self._no_dump(f"it declares a document type '{name}', which is not allowed in a dump")

    def _broken(self, error: expat.ExpatError) -> BuildError:
        if not self._root:
            return self._no_dump(expat.ErrorString(error.code))
        return BuildError(
            f"{self._path} is damaged: {expat.ErrorString(error.code)} at line {error.lineno}, column {error.offset}",
            hint="get it again; a dump may be truncated, but not damaged",
        )

    def _beyond(self, what: str) -> BuildError:
        return BuildError(f"{self._path} has {what}, the limit", hint="check the file, or get it again")

    def _no_dump(self, why: str) -> BuildError:
        return BuildError(f"{self._path} is not a MediaWiki XML dump: {why}", hint="check 'format' of the data")
