"""What every reader of a format is given."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from colbuild.errors import BuildError

_MOST_FIELDS: Final = 12


@dataclass(frozen=True)
class Reading:
    """A corpus to read.

    Attributes:
        files: Where the text is, in order.
        field: The name of the field that holds a record's text, for formats that have records; "a.b" is `b` in `a`.
        scratch: An existing folder for files that are needed meanwhile.
    """

    files: tuple[Path, ...]
    field: str
    scratch: Path


Reader = Callable[[Reading], Generator[str, None, None]]
"""From files to documents, one after the other; may yield documents without text."""


def field_text(record: Mapping[str, Any], field: str, place: str) -> str:
    """A record's text; "" if it is null.

    Args:
        record: A mapping of field names to values.
        field: A name, or names joined by dots.
        place: Where the record is, for messages.

    Raises:
        BuildError: The record has no such field, or it holds something else than text.
    """
    value: Any = record
    for name in (field,) if field in record else field.split("."):
        if not isinstance(value, Mapping) or name not in value:
            there = ", ".join(sorted(map(str, record))[:_MOST_FIELDS]) or "none"
            raise BuildError(
                f"{place}: there is no field '{field}'; the fields there are: {there}",
                hint="name the field that holds the text: 'text: FIELD' in the data section",
            )
        value = value[name]
        if value is None:
            return ""
    if not isinstance(value, str):
        raise BuildError(
            f"{place}: the field '{field}' holds {_KINDS.get(type(value), 'something')}, not text",
            hint="name another field with 'text: FIELD' ('outer.inner' for a field inside a field)",
        )
    # JSON can spell half a surrogate pair, which UTF-8 cannot.
    return value.encode("utf-8", "replace").decode("utf-8") if not value.isascii() else value


_KINDS: Final = {dict: "a record", list: "a list", int: "a number", float: "a number", bool: "true or false"}
