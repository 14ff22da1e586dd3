"""YAML as a tree of values with places, and merging of such trees that keeps the places."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from colbuild.spec.text.places import Path, Place

Plain = str | int | float | bool | None


@dataclass(frozen=True)
class Scalar:
    """A single value.

    Attributes:
        value: As YAML 1.2 understands it.
        text: As it is written, without quotes.
        place: Where.
    """

    value: Plain
    text: str
    place: Place


@dataclass(frozen=True)
class Items:
    """A list."""

    items: tuple[Node, ...]
    place: Place


@dataclass(frozen=True)
class Entry:
    """A value of a mapping, with the place of its key."""

    key: Place
    value: Node


@dataclass(frozen=True)
class Fields:
    """A mapping; `place` is its first key's, or that of its opening brace."""

    entries: Mapping[str, Entry] = field(hash=False)
    place: Place

    def get(self, key: str) -> Node | None:
        """The value of a key, None if the key is absent."""
        entry = self.entries.get(key)
        return entry.value if entry else None

    def only(self, *keys: str) -> Fields:
        """The same mapping with these keys alone."""
        return Fields({key: entry for key, entry in self.entries.items() if key in keys}, self.place)

    def without(self, *keys: str) -> Fields:
        """The same mapping without these keys."""
        return Fields({key: entry for key, entry in self.entries.items() if key not in keys}, self.place)

    def with_entry(self, key: str, value: Node, place: Place | None = None) -> Fields:
        """The same mapping with one more entry, or another value of it."""
        return Fields({**self.entries, key: Entry(place or value.place, value)}, self.place)


Node = Scalar | Items | Fields


def merge(lower: Fields, upper: Fields) -> Fields:
    """Mappings merge key by key; everything else (lists, numbers, null) of `upper` replaces that of `lower`."""
    entries = dict(lower.entries)
    for key, entry in upper.entries.items():
        below = entries.get(key)
        if below is not None and isinstance(below.value, Fields) and isinstance(entry.value, Fields):
            entries[key] = Entry(entry.key, merge(below.value, entry.value))
        else:
            entries[key] = entry
    return Fields(entries, upper.place)


def plain(node: Node) -> object:
    """The tree as Python values: dict, tuple and scalars."""
    if isinstance(node, Scalar):
        return node.value
    if isinstance(node, Items):
        return tuple(plain(item) for item in node.items)
    return {key: plain(entry.value) for key, entry in node.entries.items()}


def is_null(node: Node | None) -> bool:
    """Returns whether a value is absent or written as null."""
    return node is None or (isinstance(node, Scalar) and node.value is None)


def known_places(node: Node) -> dict[Path, Place]:
    """Every path in the tree with its place: a single value's own, and the key's for what spans lines."""
    return dict(_known(node, (), node.place))


def _known(node: Node, path: Path, place: Place) -> Iterator[tuple[Path, Place]]:
    yield path, place
    if isinstance(node, Fields):
        for key, entry in node.entries.items():
            at = entry.value.place if isinstance(entry.value, Scalar) else entry.key
            yield from _known(entry.value, (*path, key), at)
    elif isinstance(node, Items):
        for index, item in enumerate(node.items):
            yield from _known(item, (*path, index), item.place)
