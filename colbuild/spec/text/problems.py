"""Mistakes in the user's files, reported together, each with its place."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from colbuild.bounds import SPEC_PROBLEMS
from colbuild.errors import SpecError
from colbuild.spec.text.places import Place

_WIDTH: Final = 100
_LONGEST: Final = 2000
"""Characters of a message: a word of the file may be a megabyte."""


@dataclass(frozen=True)
class Problem:
    """One mistake.

    Attributes:
        place: Where it is; None when it is in no file.
        message: What is wrong, in one line.
        hint: What to write instead, if that can be told.
    """

    place: Place | None
    message: str
    hint: str | None = None


def spec_error(problems: Iterable[Problem]) -> SpecError:
    """The error that tells every problem once, sorted by place.

    ::

        2 problems in the spec

        recipes/distill.yaml:9:3: unknown key 'temprature' in 'loss'
          |
        9 |   temprature: 2.0
          |   ^^^^^^^^^^
          = did you mean 'temperature'?
    """
    found = sorted(dict.fromkeys(problems), key=_order)
    count = "1 problem" if len(found) == 1 else f"{len(found):,} problems"
    told = [f"{count} in the spec", *map(render, found[:SPEC_PROBLEMS])]
    if len(found) > SPEC_PROBLEMS:
        told.append(f"and {len(found) - SPEC_PROBLEMS:,} more; {SPEC_PROBLEMS} are shown")
    return SpecError("\n\n".join(told))


def render(problem: Problem) -> str:
    """One problem as text: place and message, the source line with a caret below, the hint."""
    place, message, hint = problem.place, _clipped(problem.message), _clipped(problem.hint or "")
    if place is None:
        return message + (f"\n  = {hint}" if hint else "")
    lines = [f"{place.file}:{place.line}:{place.column}: {message}"]
    number = str(place.line)
    margin = " " * len(number)
    if place.source.strip():
        before, marked, after = _excerpt(place)
        caret = " " * _columns(before) + "^" * max(1, _columns(marked))
        lines += [f"{margin} |", f"{number} | {before}{marked}{after}".rstrip(), f"{margin} | {caret}"]
    if hint:
        lines.append(f"{margin} = {hint}")
    return "\n".join(lines)


def _clipped(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def in_line(problem: Problem) -> str:
    """One problem in one line, for what is only a warning."""
    place = problem.place
    at = "" if place is None else f"{place.file}:{place.line}:{place.column}: "
    return f"{at}{problem.message}" + (f" ({problem.hint})" if problem.hint else "")


def _order(problem: Problem) -> tuple[bool, str, int, int, str]:
    place = problem.place
    if place is None:
        return (False, "", 0, 0, problem.message)
    return (True, place.file, place.line, place.column, problem.message)


def _excerpt(place: Place) -> tuple[str, str, str]:
    """The source line around the place, as (before, marked, after); long lines are cut to what fits a terminal."""
    start = min(place.column - 1, len(place.source))
    end = min(start + place.length, len(place.source))
    first = 0 if end <= _WIDTH else max(0, start - _WIDTH // 4)
    # A character that moves the cursor would tear caret and text apart.
    shown = place.source[first : first + _WIDTH]
    line = "".join(" " if unicodedata.category(char).startswith("C") else char for char in shown)
    start, end = start - first, min(end - first, _WIDTH)
    after = line[end:] + ("..." if len(place.source) > first + _WIDTH else "")
    return ("..." if first else "") + line[:start], line[start:end], after


def _columns(text: str) -> int:
    """How many columns of a terminal a text takes: CJK characters take two, combining marks none."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )
