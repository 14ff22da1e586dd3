"""Streams the elements of a JSON array: memory holds one element and a part of the file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from colbuild.errors import SourceError
from colbuild.fetch.texts.raw_files import texts

_SPACES: Final = re.compile(r"[ \t\r\n]*")
_NEAR_END: Final = 16
"""An error this close to the end of what was read may only say that more has to be read."""


def elements(path: Path, longest: int) -> Iterator[tuple[str, Any]]:
    """The elements of the array that a file holds, each with its place.

    Args:
        path: The file, perhaps compressed.
        longest: Characters of the longest element.

    Raises:
        BuildError: The file is no array, cut off, damaged, not UTF-8, or holds an element that is too long.
    """
    window = _Window(path, texts(path))
    window.take("[")
    number = 0
    if window.next() == "]":
        window.take("]")
    else:
        while True:
            number += 1
            yield f"{path}, element {number}", window.element(number, longest)
            if window.take(",]") == "]":
                break
    if window.next():
        raise SourceError(
            f"{path} continues after the end of its array", hint="put all objects into one array", key="format"
        )


class _Window:
    """The part of a file that is being read."""

    def __init__(self, path: Path, source: Iterator[str]) -> None:
        self._path = path
        self._source = source
        self._text = ""
        self._at = 0
        self._decoder = json.JSONDecoder()

    def next(self) -> str:
        """The next character that is no space; "" at the end of the file."""
        while True:
            if spaces := _SPACES.match(self._text, self._at):
                self._at = spaces.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._grow(1):
                return ""

    def take(self, wanted: str) -> str:
        """The next character, which has to be one of these."""
        found = self.next()
        if not found:
            raise self._cut_off()
        if found not in wanted:
            raise self._broken(f"'{found}' in the place of '{wanted[0]}'")
        self._at += 1
        return found

    def element(self, number: int, longest: int) -> Any:
        """The next element."""
        if not self.next():
            raise self._cut_off()
        while True:
            try:
                value, self._at = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                unfinished = error.msg.startswith("Unterminated") or error.pos > len(self._text) - _NEAR_END
                size = len(self._text) - self._at
                if unfinished and size > longest:
                    raise self._broken(f"element {number} is longer than {longest:,} characters, the limit") from error
                if not unfinished:
                    raise self._broken(f"element {number}: {error.msg}") from error
                # As much again: the work stays proportional to an element's length.
                if not self._grow(max(1, size)):
                    raise self._cut_off() from error
            except RecursionError as error:
                raise self._broken(f"element {number} is nested too deeply") from error
            except ValueError as error:
                raise self._broken(f"element {number} has a number with too many digits") from error
            else:
                return value

    def _grow(self, wanted: int) -> bool:
        """Reads at least so many characters more; returns whether there were any."""
        pieces, size = [self._text[self._at :]], 0
        self._at = 0
        while size < wanted and (piece := next(self._source, "")):
            pieces.append(piece)
            size += len(piece)
        self._text = "".join(pieces)
        return size > 0

    def _broken(self, why: str) -> SourceError:
        return SourceError(f"{self._path}: broken JSON: {why}", hint="check the file with 'jq type'", key="format")

    def _cut_off(self) -> SourceError:
        return SourceError(f"{self._path} is truncated: it ends inside its JSON array", hint="get it again")
