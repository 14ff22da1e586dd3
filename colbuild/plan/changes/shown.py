"""Values and places in sentences about differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from colbuild.plan.changes.differ import Change
from colbuild.spec import Places
from colbuild.spec.text.places import Path

_NOTHING: Final = "none"


def shown(value: Any) -> str:
    """A value as a difference shows it. A text that reads like no value at all (`begin: none`) stands in quotation marks."""
    if value is None:
        return _NOTHING
    return f"'{value}'" if value == _NOTHING else str(value)


def where(places: Places, path: Path) -> str:
    """The place of a value behind a sentence about it; nothing if it has none."""
    place = places.nearest(path)
    return f"  {place}" if place else ""


def from_to(change: Change) -> str:
    """Returns a text with the old and the new value."""
    return f"{shown(change.before)} -> {shown(change.after)}"


def in_short(told: Sequence[str]) -> str:
    """The first two of several differences in one line, and how many more there are."""
    return "; ".join(told[:2]) + (f" and {len(told) - 2} more" if len(told) > 2 else "")


def listed(heading: str, told: Sequence[str], most: int) -> str:
    """A heading, and below it one line for each difference, up to a number of them."""
    more = [f"and {len(told) - most} more"] if len(told) > most else []
    return "\n".join([heading, *(f"  {line}" for line in (*told[:most], *more))])
