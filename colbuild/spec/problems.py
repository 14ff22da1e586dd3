"""Mistakes in what the user wrote, told all at once, each with its place."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from colbuild.errors import SpecError
from colbuild.spec.places import Place

_WIDTH: Final = 100


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
    told = sorted(dict.fromkeys(problems), key=_order)
    count = "1 problem" if len(told) == 1 else f"{len(told)} problems"
    return SpecError("\n\n".join([f"{count} in the spec", *map(render, told)]))


def render(problem: Problem) -> str:
    """One problem as text: place and message, the source line with a caret below, the hint."""
    place = problem.place
    if place is None:
        return problem.message + (f"\n  = {problem.hint}" if problem.hint else "")
    lines = [f"{place.file}:{place.line}:{place.column}: {problem.message}"]
    number = str(place.line)
    margin = " " * len(number)
    if place.source.strip():
        before, marked, after = _excerpt(place)
        caret = " " * _columns(before) + "^" * max(1, _columns(marked))
        lines += [f"{margin} |", f"{number} | {before}{marked}{after}".rstrip(), f"{margin} | {caret}"]
    if problem.hint:
        lines.append(f"{margin} = {problem.hint}")
    return "\n".join(lines)


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
    # A character that moves the cursor would tear caret and text apart.
    line = "".join(" " if unicodedata.category(char).startswith("C") else char for char in place.source)
    start = min(place.column - 1, len(line))
    end = min(start + place.length, len(line))
    first = 0 if end <= _WIDTH else max(0, start - _WIDTH // 4)
    end = min(end, first + _WIDTH)
    before = ("..." if first else "") + line[first:start]
    after = line[end : first + _WIDTH] + ("..." if len(line) > first + _WIDTH else "")
    return before, line[start:end], after


def _columns(text: str) -> int:
    """How many columns of a terminal a text takes: CJK characters take two, combining marks none."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )
