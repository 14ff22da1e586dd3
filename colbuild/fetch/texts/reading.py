"""The arguments of every reader of a format, and the errors of a corpus that cannot be read."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from colbuild.errors import SourceError

_MOST_FIELDS: Final = 12
_DEEPEST: Final = 16
_LONGEST_NAME: Final = 60
_USUAL: Final = ("text", "content", "body", "document", "article", "passage", "markdown", "raw_content", "story")
"""What the field with the text is called in most datasets, the likelier ones first."""


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
        SourceError: The record has no such field, or it holds something else than text.
    """
    value: Any = record
    for name in (field,) if field in record else field.split("."):
        if not isinstance(value, Mapping) or name not in value:
            raise missing_field(field, list(_leaves(record)), place)
        value = value[name]
        if value is None:
            return ""
    if not isinstance(value, str):
        raise no_text(field, _KINDS.get(type(value), "something"), list(_leaves(record)), place)
    # JSON can spell half a surrogate pair, which UTF-8 cannot.
    return value.encode("utf-8", "replace").decode("utf-8") if not value.isascii() else value


def missing_field(field: str, fields: Iterable[tuple[str, bool]], place: str, noun: str = "field") -> SourceError:
    """The error of a record without the field that holds the text.

    Args:
        field: Its name.
        fields: The fields that the record has, each with whether it holds text.
        place: Where the record is.
        noun: What the format calls a field.
    """
    every = list(fields)
    names = sorted(name for name, _ in every)
    more = f" and {len(names) - _MOST_FIELDS} more" if len(names) > _MOST_FIELDS else ""
    there = ", ".join(name[:_LONGEST_NAME] for name in names[:_MOST_FIELDS]) + more
    return SourceError(
        f"{place}: there is no {noun} '{field}'; the {noun}s there are: {there or 'none'}",
        hint=_advice(field, every) or f"name the {noun} that holds the text: 'text: FIELD' in the data section",
        key="text",
    )


def no_text(field: str, kind: str, fields: Iterable[tuple[str, bool]], place: str, noun: str = "field") -> SourceError:
    """The error of a field that holds something else than text; for the arguments see `missing_field`."""
    return SourceError(
        f"{place}: the {noun} '{field}' holds {kind}, not text",
        hint=_advice(field, list(fields))
        or f"name another {noun} with 'text: FIELD' ('outer.inner' for a field inside a field)",
        key="text",
    )


def _advice(field: str, fields: list[tuple[str, bool]]) -> str | None:
    """The field that was most likely meant: one of like name, of a usual name, or the only one that holds text."""
    texts = [name for name, is_text in fields if is_text]
    usual = [name for wanted in _USUAL for name in texts if name.rsplit(".", 1)[-1].lower() == wanted]
    near = difflib.get_close_matches(field, texts, n=1) or usual or (texts if len(texts) == 1 else [])
    return f"did you mean 'text: {near[0]}'?" if near else None


def _leaves(record: Mapping[str, Any], outer: str = "", depth: int = _DEEPEST) -> Iterable[tuple[str, bool]]:
    """The fields of a record by their full names, each with whether it holds text; of what is deeper, only that it is there."""
    for name, value in record.items():
        if isinstance(value, Mapping) and value and depth:
            yield from _leaves(value, f"{outer}{name}.", depth - 1)
        else:
            yield f"{outer}{name}", isinstance(value, str)


_KINDS: Final = {dict: "a record", list: "a list", int: "a number", float: "a number", bool: "true or false"}
