"""YAML to values with places.

Built on the parser's events, not on a loader's objects: no tag can construct anything, plain words are read by the
rules of YAML 1.2 (`no` and `on` are words, `010` is ten, `3e-4` a number), duplicate keys are noticed, and aliases
cannot grow a small file into a large tree.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import yaml

from colbuild.bounds import SPEC_BYTES, SPEC_DEPTH, SPEC_ITEMS, SPEC_NODES, SPEC_PROBLEMS
from colbuild.spec.text.nodes import Entry, Fields, Items, Node, Plain, Scalar
from colbuild.spec.text.places import Place
from colbuild.spec.text.problems import Problem
from colbuild.spec.text.syntax import explain

# The C parser is an optional part of PyYAML; both give the same events.
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_INT: Final = re.compile(r"[-+]?[0-9]+")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_RADIX: Final = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_WORDS: Final[dict[str, Plain]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **{f"{sign}.{word}": float(f"{sign}inf") for sign in ("", "+", "-") for word in ("inf", "Inf", "INF")},
    **{f".{word}": float("nan") for word in ("nan", "NaN", "NAN")},
}
_CONFLICT: Final = re.compile(r"^(<{7}|>{7}|\|{7})( |$)|^={7}$")
_UNPRINTABLE: Final = re.compile(
    "[^\x09\x0a\x0d\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)


@dataclass(frozen=True)
class Document:
    """A file as read.

    Attributes:
        root: Its tree; None when it is empty or cannot be read at all.
        problems: What is wrong with it as YAML.
    """

    root: Node | None
    problems: tuple[Problem, ...] = ()


def read_yaml(raw: bytes, file: str) -> Document:
    """Reads one YAML document.

    Args:
        raw: The file's bytes.
        file: Its name in places.
    """
    start = Place(file, 1, 1)
    if len(raw) > SPEC_BYTES:
        told = f"the file is too large to be a specification: {len(raw):,} bytes; the limit is {SPEC_BYTES:,}"
        return Document(None, (Problem(start, told),))
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return Document(None, (_not_utf8(raw, error, file),))
    lines = text.splitlines()
    conflicts = [Place(file, n, 1, line, len(line)) for n, line in enumerate(lines, 1) if _CONFLICT.match(line)]
    if any(place.source[0] in "<>" for place in conflicts):
        hint = "keep one of the two versions and delete the marker lines"
        return Document(None, (Problem(conflicts[0], "a merge conflict is left in this file", hint),))
    bad = _UNPRINTABLE.search(text)
    if bad:
        before = text[: bad.start()].splitlines() or [""]
        place = Place(file, len(before), len(before[-1]) + 1, lines[len(before) - 1])
        return Document(
            None, (Problem(place, f"the character U+{ord(bad[0]):04X} is not allowed in YAML", "delete it"),)
        )
    return _Reader(file, lines).read(text)


def _not_utf8(raw: bytes, error: UnicodeDecodeError, file: str) -> Problem:
    before = raw[: error.start].decode("utf-8-sig", "replace").splitlines(keepends=True) or [""]
    if before[-1].endswith(("\n", "\r")):
        before.append("")
    place = Place(file, len(before), len(before[-1]) + 1)
    return Problem(place, f"the file is not UTF-8: byte 0x{raw[error.start]:02x}", "save it as UTF-8")


def _resolve(text: str) -> Plain:
    """What a plain word means by YAML 1.2's core schema."""
    if text in _WORDS:
        return _WORDS[text]
    if len(text) > 100 or text[0] not in "+-.0123456789":
        return text
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return int(text, 0) if _RADIX.fullmatch(text) else text


class _UnreadableError(Exception):
    """Reading cannot go on; the problem is already noted."""


@dataclass
class _Reader:
    """One document being read: events in, tree out."""

    file: str
    lines: list[str]
    problems: list[Problem] = field(default_factory=list)
    nodes: int = 0
    anchors: dict[str, tuple[Node, int]] = field(default_factory=dict)

    def read(self, text: str) -> Document:
        events: Iterator[yaml.Event] = yaml.parse(text, Loader=_LOADER)
        root: Node | None = None
        documents = 0
        try:
            for event in events:
                if not isinstance(event, yaml.DocumentStartEvent):
                    continue
                documents += 1
                if documents == 2:
                    self.note(self.place(event), "a second document starts here", _ONE_FILE)
                    break
                root = self.node(next(events), events, 0)
        except yaml.MarkedYAMLError as error:
            place, message, hint = explain(error, self.lines)
            self.note(self.at(*place), message, hint)
            root = None
        except _UnreadableError:
            root = None
        if isinstance(root, Scalar) and root.value is None and not root.text:
            root = None  # nothing but comments
        return Document(root, tuple(self.problems))

    def node(self, event: yaml.Event, events: Iterator[yaml.Event], depth: int) -> Node:
        """The tree that starts with an event; takes its events up to its end."""
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event)
        before = self.nodes
        place = self.place(event)
        self.count(1, place)
        if depth > SPEC_DEPTH:
            self.stop(place, f"nested more than {SPEC_DEPTH} levels deep")
        if getattr(event, "tag", None) not in (None, "!", "tag:yaml.org,2002:str"):
            self.note(place, "YAML tags are not supported", "delete it")
        node: Node
        if isinstance(event, yaml.ScalarEvent):
            is_plain = not event.style and event.tag is None
            node = Scalar(_resolve(event.value) if is_plain else event.value, event.value, place)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = Items(tuple(self.items(events, depth)), place)
        else:
            node = self.fields(events, depth, place, flow=bool(getattr(event, "flow_style", False)))
        anchor = getattr(event, "anchor", None)
        if anchor is not None:
            self.anchors[anchor] = (node, self.nodes - before)
        return node

    def alias(self, event: yaml.AliasEvent) -> Node:
        place = self.place(event)
        if event.anchor not in self.anchors:
            names = ", ".join(f"&{name}" for name in self.anchors)
            hint = f"anchors before it: {names}" if names else "mark a value with &name before it is used as *name"
            self.note(place, f"there is no anchor '&{event.anchor}' before this", hint)
            return Scalar(None, "", place)
        node, size = self.anchors[event.anchor]
        self.count(size, place)
        return node

    def items(self, events: Iterator[yaml.Event], depth: int) -> Iterator[Node]:
        for number, event in enumerate(events):
            if isinstance(event, yaml.SequenceEndEvent):
                return
            if number == SPEC_ITEMS:
                self.stop(self.place(event), f"a list has more than {SPEC_ITEMS:,} values here")
            yield self.node(event, events, depth + 1)

    def fields(self, events: Iterator[yaml.Event], depth: int, place: Place, *, flow: bool) -> Fields:
        entries: dict[str, Entry] = {}
        first: Place | None = None
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            key = self.node(event, events, depth + 1)
            value = self.node(next(events), events, depth + 1)
            if len(entries) == SPEC_ITEMS:
                self.stop(key.place, f"a mapping has more than {SPEC_ITEMS:,} keys here")
            first = first or key.place
            if not isinstance(key, Scalar):
                self.note(key.place, "a key must be a single word", None)
            elif key.text == "<<":
                self.note(key.place, "merge keys ('<<') are not supported", _MERGE)
            elif key.text in entries:
                line = entries[key.text].key.line
                self.note(key.place, f"'{key.text}' is given twice", f"keep one; the other is in line {line}")
            elif not key.text:
                self.note(key.place, "a key is missing before this ':'", None)
            else:
                entries[key.text] = Entry(key.place, value)
        return Fields(entries, place if flow else first or place)

    def count(self, nodes: int, place: Place) -> None:
        self.nodes += nodes
        if self.nodes > SPEC_NODES:
            self.stop(place, f"the file holds more than {SPEC_NODES:,} values, its aliases counted each time")

    def note(self, place: Place, message: str, hint: str | None) -> None:
        self.problems.append(Problem(place, message, hint))
        if len(self.problems) > 10 * SPEC_PROBLEMS:
            raise _UnreadableError

    def stop(self, place: Place, message: str) -> None:
        self.note(place, message, None)
        raise _UnreadableError

    def place(self, event: yaml.Event) -> Place:
        start, end = event.start_mark, event.end_mark
        if start is None or end is None:  # the parsers always mark; their types do not say so
            return self.at(0, 0)
        return self.at(start.line, start.column, end.column - start.column if end.line == start.line else None)

    def at(self, line: int, column: int, length: int | None = 1) -> Place:
        """A place from the parser's counting, which starts at 0; to the end of the line without a length."""
        line = min(line, max(len(self.lines) - 1, 0))
        source = self.lines[line] if self.lines else ""
        return Place(
            self.file, line + 1, column + 1, source, max(1, len(source) - column if length is None else length)
        )


_ONE_FILE = "write each document into its own file"
_MERGE = "extend a recipe with 'extends', or write shared values under 'defaults'"
