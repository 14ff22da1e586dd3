"""Detects the format of a file from its first bytes, if its name does not give it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

from colbuild.fetch.texts.raw_files import CutOffError, chunks
from colbuild.spec.sources.formats import FORMATS, JSONL, MEDIAWIKI, TEXT

_LOOKED_AT: Final = 1 << 20
_DUMP: Final = re.compile(r"(<\?xml[^>]*>)?\s*<mediawiki[\s>]")
_ARRAY: Final = re.compile(r'\[\s*\{\s*"')
_SPREAD: Final = re.compile(r'\{\s*\n\s*"(?:[^"\\]|\\.)*"\s*:')
_FIELD: Final = re.compile(r'\{\s*"(?:[^"\\]|\\.)*"\s*:')


def sniff(path: Path) -> str | None:
    """The format of a file; plain text if it is no other, None if it is empty.

    Text may begin with a brace: it is JSON if its first line is an object, or if it begins as an array of objects does.

    Raises:
        BuildError: It is compressed, and damaged or unsupported.
    """
    start = _start(path)
    if not start:
        return None
    form = next((row.name for row in FORMATS.values() if row.magic and start.startswith(row.magic)), None)
    if form is not None:
        return form
    text = start.decode("utf-8-sig", "replace").lstrip()
    if _DUMP.match(text):
        return MEDIAWIKI
    return JSONL if _is_json(text, whole=len(start) < _LOOKED_AT) else TEXT


def _start(path: Path) -> bytes:
    start = b""
    try:
        for data in chunks(path):
            start += data
            if len(start) >= _LOOKED_AT:
                break
    except CutOffError:
        # Reading it as its format will say so.
        pass
    return start[:_LOOKED_AT]


def _is_json(text: str, *, whole: bool) -> bool:
    if _ARRAY.match(text) or _SPREAD.match(text):
        # An object over several lines is no JSON lines: its reader says so, instead of taking it for text.
        return True
    line, end, _ = text.partition("\n")
    if not end and not whole:
        return _FIELD.match(line) is not None
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
