"""JSON: one object per line, or one array of objects; a field of each object is the text."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from colbuild.bounds import DOCUMENT_CHARACTERS
from colbuild.errors import SourceError
from colbuild.fetch.texts.formats.json_array import elements
from colbuild.fetch.texts.raw_files import lines, texts
from colbuild.fetch.texts.reading import Reading, field_text


def read(reading: Reading) -> Generator[str, None, None]:
    """The text of each record; blank lines are passed over.

    Raises:
        BuildError: A record is no JSON object or lacks the field; a file is damaged, cut off, or not UTF-8.
    """
    for path in reading.files:
        for place, record in elements(path, DOCUMENT_CHARACTERS) if _is_array(path) else _records(path):
            if not isinstance(record, dict):
                raise SourceError(f"{place}: not a JSON object", hint=_HINT, key="format")
            yield field_text(record, reading.field, place)


def _is_array(path: Path) -> bool:
    for piece in texts(path):
        if piece.strip():
            return piece.lstrip().startswith("[")
    return False


def _records(path: Path) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(lines(path, most=DOCUMENT_CHARACTERS), start=1):
        if not line.strip():
            continue
        try:
            yield f"{path}:{number}", json.loads(line.rstrip())
        except (ValueError, RecursionError) as error:
            raise _broken(path, number, line, error) from error


def _broken(path: Path, number: int, line: str, error: ValueError | RecursionError) -> SourceError:
    if not isinstance(error, json.JSONDecodeError):
        why = "nested too deeply" if isinstance(error, RecursionError) else "a number with too many digits"
        return SourceError(f"{path}:{number}: broken JSON: {why}", hint=_HINT, key="format")
    hint = _HINT
    if number == 1 and line.strip() in ("{", "[{"):
        hint = "write each object in one line, as 'jq -c .' does"
    elif number > 1 and not line.endswith("\n"):
        hint = "get the file again, or remove its last line"
    return SourceError(f"{path}:{number}:{error.colno}: broken JSON: {error.msg}", hint=hint, key="format")


_HINT = "write one JSON object per line, or one array of objects"
