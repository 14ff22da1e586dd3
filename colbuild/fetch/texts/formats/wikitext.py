"""Converts wikitext to the text that a reader sees, without tables, templates, references and files."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence, Set
from typing import Final

import mwparserfromhell
from mwparserfromhell import nodes
from mwparserfromhell.parser import ParserError
from mwparserfromhell.wikicode import Wikicode

_DROPPED_TAGS: Final = frozenset([
    "ce", "chem", "gallery", "graph", "hiero", "imagemap", "inputbox", "mapframe", "maplink", "math", "ref",
    "references", "score", "script", "style", "syntaxhighlight", "table", "templatedata", "timeline",
])  # fmt: skip
_BLOCK_TAGS: Final = frozenset(["blockquote", "br", "center", "div", "hr", "li", "p", "pre", "tr"])

_HEADING: Final = "\x00"
"""Stands before a heading's level and title until `_tidy`: XML cannot contain it, so neither can an article."""

_MOST_UNCLOSED: Final = 500
"""The parser goes back at everything that is opened and not closed: its time is the square of their number, or worse.
No article of a real dump comes near; a hostile page would stop the build for hours."""

_OPEN_TAG: Final = re.compile(r"<(?!(?:br|hr|li|p|td|th|tr|dt|dd|wbr|img)\b)[A-Za-z][^<>]*(?<!/)>?", re.IGNORECASE)
_LANGUAGE: Final = re.compile(r"[a-z]{2,3}(-[a-z]+)*|simple")
_DEEP_LIST: Final = re.compile(r"^[:;*#]{40,}", re.MULTILINE)
_DEEPER_LIST: Final = re.compile(r"^[:;*#]{10,39}", re.MULTILINE)
_MOST_DEEPER: Final = 20_000
"""Marks of such lists in an article: each is a node, which takes a hundred times as long as a character."""
_QUOTES: Final = re.compile(r"'{2,5}")
_TEMPLATE: Final = re.compile(r"\{\{[^{}]*\}\}|\{\{\{|\{\{|\}\}")
_TAG: Final = re.compile(r"</?[A-Za-z][^<>\n]{0,300}>|<!--|-->")
_SWITCH: Final = re.compile(r"__[A-Z]+__")
_EMPTY_BRACKETS: Final = re.compile(r"[ ]?\([\s,;:]*\)|[ ]?\[[\s,;:]*\]")
_SPACES: Final = re.compile(r"[ \t\u00a0]+")
_LEFT_OF_TABLES: Final = ("{|", "|", "!", "[[")


def plain_text(wikitext: str, file_names: Set[str]) -> str:
    """The text of an article: paragraphs and headings, a heading being a plain line of its own.

    Templates, tables, references, formulas, files, categories and links to other languages are dropped; a link leaves
    its text. A heading with nothing under it is dropped too. Markup that is too broken to be parsed yields no text.

    Args:
        wikitext: The source of a page.
        file_names: Case-folded names of the namespaces whose links show no text (files, media, categories).
    """
    if _unclosed(wikitext) > _MOST_UNCLOSED or sum(map(len, _DEEPER_LIST.findall(wikitext))) > _MOST_DEEPER:
        return ""
    try:
        # Styles are cheaper and safer to remove by hand: an unbalanced '' can hide whole paragraphs from the parser.
        code = mwparserfromhell.parse(_DEEP_LIST.sub("", wikitext), skip_style_tags=True)
    except (ParserError, RecursionError):
        return ""
    pieces: list[str] = []
    try:
        _render(code, file_names, pieces.append)
    except RecursionError:
        return ""
    return _tidy("".join(pieces))


def _unclosed(wikitext: str) -> int:
    """About how much is opened and never closed."""
    pairs = (("{{", "}}"), ("[[", "]]"), ("{|", "|}"), ("<!--", "-->"))
    unclosed = [wikitext.count(start) - wikitext.count(end) for start, end in pairs]
    unclosed.append(wikitext.count("[http") - wikitext.count("]") + 2 * wikitext.count("]]"))
    unclosed.append(len(_OPEN_TAG.findall(wikitext)) - wikitext.count("</"))
    return sum(max(0, count) for count in unclosed)


def _render(code: Wikicode, file_names: Set[str], write: Callable[[str], None]) -> None:
    for node in code.nodes:
        if isinstance(node, nodes.Text):
            write(node.value)
        elif isinstance(node, nodes.Wikilink):
            _render_link(node, file_names, write)
        elif isinstance(node, nodes.Heading):
            write(f"\n\n{_HEADING}{node.level}")
            _render(node.title, file_names, lambda text: write(text.replace("\n", " ")))
            write("\n\n")
        elif isinstance(node, nodes.HTMLEntity):
            write(_entity(node))
        elif isinstance(node, nodes.ExternalLink):
            if node.title is not None:
                _render(node.title, file_names, write)
        elif isinstance(node, nodes.Tag):
            name = str(node.tag).strip().lower()
            if name in _DROPPED_TAGS:
                continue
            edge = "\n" if name in _BLOCK_TAGS and not node.wiki_markup else ""
            write(edge)
            if node.contents:
                _render(node.contents, file_names, write)
                write(edge)


def _render_link(link: nodes.Wikilink, file_names: Set[str], write: Callable[[str], None]) -> None:
    title = str(link.title).strip()
    prefix, colon, _ = title.partition(":")
    if colon and prefix:
        if prefix.strip().replace("_", " ").casefold() in file_names:
            return
        if link.text is None and _LANGUAGE.fullmatch(prefix.strip()):
            return
    if link.text is None:
        write(title.lstrip(":#"))
    else:
        _render(link.text, file_names, write)


def _entity(node: nodes.HTMLEntity) -> str:
    """The character that an entity stands for; control characters and half surrogate pairs are dropped."""
    character = str(node.normalize())
    return character if character.isprintable() or character.isspace() else ""


def _tidy(text: str) -> str:
    """Removes what dropped markup leaves behind: empty brackets, spaces, blank lines, headings of empty sections."""
    text = _SWITCH.sub("", _TAG.sub("", _TEMPLATE.sub("", _QUOTES.sub("", text))))
    text = _SPACES.sub(" ", _EMPTY_BRACKETS.sub("", text)).replace(" ,", ",").replace(" .", ".")
    lines = [line.strip() for line in text.split("\n")]
    return "\n".join(_without_empty_sections([line for line in lines if not line.startswith(_LEFT_OF_TABLES)])).strip()


def _without_empty_sections(lines: Sequence[str]) -> list[str]:
    """The lines with single blank lines only, without headings that have no text before the next one of their rank."""
    kept: list[str] = []
    below = 0  # Rank of the heading that follows with no text between; 0: the article's end. Text below: 9.
    for line in reversed(lines):
        if line.startswith(_HEADING):
            rank, title = int(line[1]), line[2:].strip()
            if title and rank < below:
                kept.append(title)
                below = rank
        elif line:
            kept.append(line)
            below = 9
        elif kept and kept[-1]:
            kept.append("")
    return kept[::-1]
