"""JSON lines: one object per line, one of its fields the text."""

from __future__ import annotations

import json
from collections.abc import Generator

from colbuild.errors import BuildError
from colbuild.ops.corpus.files import lines
from colbuild.ops.corpus.reading import Reading, field_text


def read(reading: Reading) -> Generator[str, None, None]:
    """The text of each record; blank lines are passed over.

    Raises:
        BuildError: A line is no JSON object or lacks the field; a file is damaged, cut off, or not UTF-8.
    """
    for path in reading.files:
        for number, line in enumerate(lines(path), start=1):
            if not line.strip():
                continue
            place = f"{path}:{number}"
            try:
                record = json.loads(line.rstrip())
            except (ValueError, RecursionError) as error:
                message = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply"
                column = f":{error.colno}" if isinstance(error, json.JSONDecodeError) else ""
                raise BuildError(f"{place}{column}: broken JSON: {message}", hint=_HINT) from error
            if not isinstance(record, dict):
                raise BuildError(f"{place}: not a JSON object", hint=_HINT)
            yield field_text(record, reading.field, place)


_HINT = "'format: jsonl' wants one JSON object per line"
