"""Proposes anchors for a gap that is too wide for a teacher, as text to paste."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence
from math import ceil, log

from colbuild.arch import Shape, Structure, parameters
from colbuild.arch.solving import NoShapeError, solve_between
from colbuild.plan.shapes.by_hand import requested
from colbuild.spec.model.family import Sized
from colbuild.units import format_count, parse_count

_MOST = 8
"""No more anchors than these are proposed: a gap that needs more is a mistake, or `max_gap` is."""

Proposal = tuple[Sized, ...]
"""Anchors to write, from large to small."""


def down_to(high: int, last: int, max_gap: float, taken: Collection[str]) -> Iterator[Proposal]:
    """Ways to go on from a chain's last model of `high` parameters to an anchor of `last`, the simplest first."""
    for sizes in _steps(high, last, max_gap):
        yield named([*sizes, last], taken)


def between(
    high: Structure, low: Structure, max_gap: float, members: Sequence[Structure], taken: Collection[str]
) -> Iterator[Proposal]:
    """Ways to fill the gap between two neighbours, the simplest first: by round sizes, by shapes on the line, by a member's.

    Sizes do not fit where a shape below them was chosen by hand; a shape on the line does, unless a DesNet's shape lies off
    it, which can then be an anchor itself.

    Args:
        high: The larger neighbour.
        low: The smaller one.
        max_gap: How many times larger than its student a teacher may be.
        members: DesNets that lie in the gap.
        taken: Names that are not free.
    """
    steps = list(_steps(parameters(high), parameters(low), max_gap))
    yield from (named(sizes, taken) for sizes in steps)
    for sizes in steps:
        try:
            shapes = [solve_between(high, high.shape, low.shape, size) for size in sizes]
        except NoShapeError:
            continue
        yield named(sizes, taken, shapes)
    for member in members:
        yield named([parameters(member)], taken, [member.shape])


def _steps(high: int, low: int, max_gap: float) -> Iterator[list[int]]:
    """Sizes that divide a gap evenly: the fewest first, and of as many the roundest first."""
    least = max(0, ceil(log(high / low) / log(max_gap)) - 1)
    for count in range(least, min(least + 2, _MOST + 1)):
        even = [high * (low / high) ** (step / (count + 1)) for step in range(1, count + 1)]
        for digits in (2, 3, 4) if count else (2,):
            yield [int(float(f"{size:.{digits - 1}e}")) for size in even]


def pasted(anchors: Sequence[Sized]) -> str:
    """Anchors as lines of YAML: one behind a colon, several below it."""
    lines = [f"- {{name: {anchor.name}, {_size(anchor)}}}" for anchor in anchors]
    return f" {lines[0]}" if len(lines) == 1 else "".join(f"\n    {line}" for line in lines)


def allowing(teacher: int, student: int) -> str:
    """The smallest `max_gap` of two decimals that allows a gap, as text."""
    return f"{(teacher * 100 // student + 1) / 100:.2f}"


def _size(anchor: Sized) -> str:
    if anchor.params is not None:
        size = format_count(anchor.params).replace(".0", "")
        # A rounded size could come out on the wrong side of a limit.
        return f"params: {size if parse_count(size) == anchor.params else anchor.params}"
    assert anchor.shape is not None
    return f"shape: {{{', '.join(f'{axis}: {length}' for axis, length in anchor.shape.model_dump().items())}}}"


def named(sizes: Sequence[int], taken: Collection[str], shapes: Sequence[Shape] | None = None) -> Proposal:
    """Anchors of these sizes, or of these shapes, with names of their own: a103 for one of 103M."""
    names: list[str] = []
    for size in sizes:
        names.append(_free(size, [*taken, *names]))
    if shapes is None:
        return tuple(Sized(name=name, params=size) for name, size in zip(names, sizes, strict=True))
    return tuple(Sized(name=name, shape=requested(shape)) for name, shape in zip(names, shapes, strict=True))


def _free(size: int, taken: Collection[str]) -> str:
    """A name for an anchor of this size, such as a56; names differ in more than upper and lower case."""
    used = {name.lower() for name in taken}
    base = f"a{size // 1_000_000 or format_count(size)}"
    names = itertools.chain([base], (f"{base}-{number}" for number in itertools.count(2)))
    return next(name for name in names if name.lower() not in used)
