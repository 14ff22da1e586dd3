"""Reads the links of an HTML page in one pass, for any page.

Parsers of whole documents need a hundred times a page's size, and a time that grows with its square where it is made for that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import unescape
from typing import Final
from urllib.parse import urljoin

_BEGINS: Final = re.compile(r"<(?=[a-zA-Z]|/[a-zA-Z]|!--)")
_TAG: Final = re.compile(r"""<(/?[a-zA-Z][^\s/>]*+)(?:((?:[^"'>]|"[^"]*+"|'[^']*+')*+)|([^>]*+))>""")
"""A tag with its attributes; the last group is where quotes are not closed."""
_ATTRIBUTE: Final = re.compile(r"""([^\s=/>"']++)\s*+(?:=\s*+("[^"]*+"|'[^']*+'|[^\s>"']++))?""")
_LONGEST_TAG: Final = 1 << 16
_LONGEST_TEXT: Final = 1000
_MOST_SLOPPY: Final = 100
"""Tags with quotes that are not closed: each may be searched to its end twice."""


@dataclass(frozen=True)
class PageLink:
    """A link: its text, and the address it leads to."""

    text: str
    url: str


@dataclass(frozen=True, slots=True)
class _Tag:
    """A tag's name, and its attributes as they are written."""

    name: str
    written: str

    def attributes(self) -> dict[str, str]:
        found = reversed([*_ATTRIBUTE.finditer(self.written)])  # the first of a name counts
        return {match[1].lower(): unescape((match[2] or "").strip("\"'")) for match in found}


def read_links(page: str, base: str, is_wanted: Callable[[str], bool]) -> Iterator[PageLink]:
    """The links of a page, in its order; those whose address cannot be read are left out.

    Args:
        page: HTML.
        base: The page's own address.
        is_wanted: Whether a link with this text is.

    Raises:
        ValueError: It is no page of links, or one in a later format than this one.
    """
    link: _Tag | None = None
    text = ""
    for piece in _pieces(page):
        if isinstance(piece, str):
            text = (text + piece)[: _LONGEST_TEXT + 1]
        elif piece.name in ("a", "/a"):
            if link is not None and text and len(text) <= _LONGEST_TEXT and is_wanted(name := unescape(text).strip()):
                yield from _link(name, link.attributes().get("href"), base)
            link, text = piece if piece.name == "a" else None, ""
        elif piece.name == "base":
            base = urljoin(base, piece.attributes().get("href", ""))
        elif piece.name == "meta" and (told := piece.attributes()).get("name") == "pypi:repository-version":
            check_version(told.get("content", ""))


def check_version(text: object) -> None:
    """Compares the version of an index's format with the one that this can read.

    Raises:
        ValueError: It is a later one, or none.
    """
    if not isinstance(text, str) or int(text.partition(".")[0][:9]) > 1:
        raise ValueError("of a later format")


def _link(text: str, address: str | None, base: str) -> Iterator[PageLink]:
    if address is None:
        return
    try:
        yield PageLink(text, urljoin(base, address.strip()))
    except ValueError:
        return


def _pieces(page: str) -> Iterator[_Tag | str]:
    """Tags, and the text between them. What is cut off at the end is left out, as browsers do."""
    place, sloppy = 0, 0
    while (begins := _BEGINS.search(page, place)) is not None:
        start = begins.start()
        if start > place:
            yield page[place : min(start, place + _LONGEST_TEXT + 1)]
        if page.startswith("<!--", start):
            place = page.find("-->", start + 4) + 3
            if place < 3:
                return
            continue
        tag = _TAG.match(page, start, start + _LONGEST_TAG)
        if tag is None:
            return
        sloppy += tag[3] is not None
        if sloppy > _MOST_SLOPPY:
            raise ValueError("no HTML")
        place = tag.end()
        yield _Tag(tag[1].lower(), tag[2] or tag[3] or "")
