"""Plain text: documents separated by two or more blank lines, or by a line that holds only a form feed."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from typing import Final

from colbuild.fetch.texts.raw_files import lines
from colbuild.fetch.texts.reading import Reading

LONGEST: Final = 1 << 16
"""Characters after which a document is cut: a file without any separator becomes many documents, so that a share of it
can be held out and memory stays bounded."""


def read(reading: Reading) -> Generator[str, None, None]:
    """The documents of text files, without the blank lines and spaces around them. A file's end ends its document.

    Raises:
        BuildError: A file is damaged, cut off, or not UTF-8.
    """
    for path in reading.files:
        yield from documents(lines(path, LONGEST))


def documents(source: Iterable[str]) -> Iterator[str]:
    """Lines, or pieces of long ones, to documents."""
    held: list[str] = []
    size = blanks = 0
    for line in source:
        content = line.strip(" \t\n")
        blanks = blanks + 1 if not content else 0
        if content == "\f" or blanks >= 2 or size + len(line) > LONGEST:
            yield "".join(held).strip()
            held, size = [], 0
        if content != "\f":
            held.append(line)
            size += len(line)
    yield "".join(held).strip()
