"""The schemes of sources, one row each: prefix, parser and reader.

A new scheme is a new row of `SCHEMES` and a reader in `colbuild.fetch`. See "Add a source" in `docs/sources.md`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from colbuild.spec.sources import source_kinds as kinds
from colbuild.spec.sources.source_kinds import Source


@dataclass(frozen=True)
class Scheme:
    """One way to say where something comes from.

    Attributes:
        name: What stands before "://"; of a path, a word for it.
        begins: What its sources begin with.
        forms: How its sources are written, as messages list them.
        parse: Reads a text that begins so; its ValueError says what was expected.
        reader: The module that reads what is named, imported when it is needed. For a remote scheme it has
            `get(source, globs, target, origin, report)`, as `colbuild.fetch.hub.hub` describes; for others
            `place(uri, source, root)`, as `colbuild.fetch.local` does.
        remote: Whether the content comes over a network: the store keeps it, and the first fetch and the lock pin it.
        nicknames: What people write for its name.
        written: How a single source is written, where `forms` is shorter.
    """

    name: str
    begins: tuple[str, ...]
    forms: tuple[str, ...]
    parse: Callable[[str, Scheme], Source]
    reader: str
    remote: bool = False
    nicknames: tuple[str, ...] = ()
    written: str | None = None

    @property
    def beginning(self) -> str:
        """The beginning of a source."""
        return self.begins[0]

    @property
    def example(self) -> str:
        """An example of a source, for a hint."""
        return self.forms[0] if self.written is None else self.written

    def rest(self, text: str) -> str:
        """Returns the rest of a source after its beginning."""
        return text.removeprefix(self.beginning)


LOCAL: Final = Scheme(
    "path",
    ("./", "/"),
    ("./folder-or-file", "/absolute/path"),
    kinds.parse_local,
    reader="colbuild.fetch.local",
)
INSTALLED: Final = Scheme(
    "pkg",
    ("pkg://",),
    ("pkg://package/file",),
    kinds.parse_package,
    reader="colbuild.fetch.installed",
    written="pkg://package/file/in/package",
)
INDEX: Final = Scheme(
    "pypi",
    ("pypi://",),
    ("pypi://name==version/path/in/archive",),
    kinds.parse_pypi,
    reader="colbuild.fetch.index.pypi",
    remote=True,
)
HUB: Final = Scheme(
    "hf",
    ("hf://",),
    ("hf://org/name@revision[/file]", "hf://datasets/org/name@revision[/file]"),
    kinds.parse_hub,
    reader="colbuild.fetch.hub.hub",
    remote=True,
    nicknames=("huggingface", "hub"),
)

SCHEMES: Final[Mapping[str, Scheme]] = {row.name: row for row in (LOCAL, INSTALLED, INDEX, HUB)}
"""By name, in the order in which messages and schemas list them."""


def scheme_of(text: str) -> Scheme | None:
    """The scheme that a text begins as; None if it begins as no source does."""
    return next((row for row in SCHEMES.values() if text.startswith(row.begins)), None)


def supported() -> str:
    """Returns all forms of sources, for a message."""
    return _listed([form for row in SCHEMES.values() for form in row.forms])


def schemes_named() -> str:
    """The beginnings of sources that are no paths, as a description lists them."""
    return _listed([row.beginning for row in SCHEMES.values() if row is not LOCAL])


def beginnings_pattern(*others: str) -> str:
    """A regular expression that matches the beginning of every source.

    Args:
        others: Regular expressions of what else a text may be.
    """
    return f"^({'|'.join((*others, *(re.escape(begin) for row in SCHEMES.values() for begin in row.begins)))})"


def _listed(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"
