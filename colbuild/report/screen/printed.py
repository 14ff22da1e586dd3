"""Prints text from outside: control characters are escaped."""

from __future__ import annotations

import json
import re
import sys
from typing import Any, Final

_BIDI: Final = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_BEYOND: Final = rf"\x7f-\x9f{_BIDI}\u2028\u2029\ud800-\udfff"
"""DEL, the C1 controls, what turns the direction of text, separators of lines, and bytes of a file name that is no UTF-8."""

_CONTROL: Final = re.compile(rf"[\x00-\x08\x0b-\x1f{_BEYOND}]")
_UNESCAPED: Final = re.compile(f"[{_BEYOND}]")


def shown(text: str) -> str:
    r"""A text whose control characters are escaped: ESC is shown as `\x1b`. Newlines and tabs stay."""
    return _CONTROL.sub(_escape, text)


def shown_json(value: object, indent: int | None = None) -> str:
    """A JSON value as text. JSON itself escapes a part of the control characters only."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return _UNESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def write_text(text: str) -> None:
    """Prints text as it is, but for control characters; for output that is no table and no message."""
    sys.stdout.write(shown(text))


def write_json(value: Any) -> None:
    """Prints a JSON value for machines."""
    sys.stdout.write(shown_json(value, indent=2) + "\n")


def _escape(found: re.Match[str]) -> str:
    number = ord(found[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
