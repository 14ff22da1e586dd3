"""Explains the errors of the YAML parser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import yaml

Point = tuple[int, int, int | None]
"""Line and column, counted from 0, and a length; None for the rest of the line."""

# Parts of what PyYAML's two parsers say -> (what is wrong, what to do). The first that fits holds.
_MEANINGS: Final[Sequence[tuple[tuple[str, ...], str, str | None]]] = (
    (
        ("mapping values are not allowed",),
        "a ':' is not expected here",
        "check the indentation; quote a value that holds ': ' itself",
    ),
    (
        ("unknown escape",),
        "an unknown escape after '\\'",
        "use 'single quotes', in which a backslash is a plain character",
    ),
    (
        ("expected ',' or '}'", "expected ',' or ']'"),
        "this bracket is not closed, or a ',' is missing behind it",
        "check the lines that follow it",
    ),
    (("quoted scalar",), "this quote is not closed", "close it on the same line"),
    (("could not find expected ':'",), "a ':' is missing", "write 'key: value', with a space after the ':'"),
    (
        (
            "expected key",
            "expected <block end>",
            "expected '-' indicator",
            "block collection",
            "block mapping",
            "indent",
        ),
        "this line does not match the lines before it",
        "check its indentation: keys of one mapping start in the same column",
    ),
    (("node content",), "a key or a value is missing before this", None),
    (("nesting depth",), "nested too deep", None),
    (("tag",), "YAML tags are not supported", "quote a value that starts with '!'"),
)


def explain(error: yaml.MarkedYAMLError, lines: Sequence[str]) -> tuple[Point, str, str | None]:
    """Returns the place of a syntax error, its message and a hint."""
    said = f"{error.context or ''} {error.problem or ''}"
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line, mark.column) if mark else (0, 0)
    if line >= len(lines) and lines:
        line, column = len(lines) - 1, max(len(lines[-1]) - 1, 0)
        if "node content" in said:
            return (line, column, 1), "the file ends here, and a bracket is still open", "close it with ']' or '}'"
    text = lines[line] if line < len(lines) else ""
    if "\t" in text[: len(text) - len(text.lstrip())]:
        return (line, text.index("\t"), 1), "a tab is used to indent", "YAML wants spaces"
    if "unknown escape" in said and text[column - 1 : column] == "\\":
        column -= 1  # one of the two parsers marks what follows the backslash
    if "cannot start any token" in said and column < len(text):
        char = text[column]
        return (line, column, 1), f"a value cannot start with '{char}'", "put the value in quotes"
    for parts, message, hint in _MEANINGS:
        if any(part in said for part in parts):
            # An unclosed quote or bracket is noticed far behind it: what helps is where it was opened.
            opened = error.context_mark if "not closed" in message else None
            if opened:
                return (opened.line, opened.column, 1), message, hint
            return (line, column, None), message, hint
    return (line, column, None), f"this is not YAML: {(error.problem or 'it cannot be read').strip()}", None
