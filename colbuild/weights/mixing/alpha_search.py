"""Searches for the best mixture of two anchors, by the loss on calibration tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from colbuild.progress import Progress, Report
from colbuild.weights.mixing.mixture import EXPAND, PATCH, SUBSET, Fill, Mix, even

GRID = (0.0, 0.25, 0.5, 0.75, 1.0)

_PROBES: Final = (0.0, 0.5, 1.0)
"""Where the loss along one coordinate is measured: a parabola has three numbers."""

_STEP: Final = 1 / 16
"""The lowest point of a parabola is taken at multiples of this: bf16 rounding moves a loss by more than a finer step does."""

_GAIN: Final = 5e-4
"""A lowest point that promises less, in nats per token, is not scored."""

_FAR: Final = 0.05
"""An end of the space that is worse by as many nats per token on part of the text is not scored on all of it."""


@dataclass(frozen=True)
class Scored:
    """A mixture and its loss in nats per token.

    Attributes:
        mix: The mixture.
        loss: Its loss.
        part: Whether only the first part of the text was scored.
    """

    mix: Mix
    loss: float
    part: bool = False


@dataclass(frozen=True)
class Axes:
    """The coordinates of a mixture that have an effect: those of existing parts.

    Attributes:
        fill: The larger anchor alone has some channels or heads.
        depth: It alone has some layers.
        nested: There is a nested student.
    """

    fill: bool
    depth: bool
    nested: bool = False

    def names(self, nested: bool) -> tuple[str, ...]:
        """The coordinates to search in mixtures with the smaller anchor or the nested student, most influential first."""
        depth, fill = (("depth",), ("fill",)) if not nested else ((), ())
        return ("mlp", "attention", *(depth if self.depth else ()), "embedding", *(fill if self.fill else ()))

    def without_absent(self, mix: Mix) -> Mix:
        """The same weights with the coordinates of absent parts at 0, so that equal mixtures are found equal."""
        return replace(mix, fill=mix.fill if self.fill else 0.0, depth=mix.depth if self.depth else 0.0)


Score = Callable[[Mix], float]
"""The loss of a mixture in nats per token."""


@dataclass(frozen=True)
class Scores:
    """How mixtures are scored.

    Attributes:
        whole: On all calibration tokens.
        part: On the first half of them.
    """

    whole: Score
    part: Score


Search = Callable[[Scores, Axes, Report], list[Scored]]
"""What tries mixtures: all that it has scored. The best one of the whole text is taken (see `best_of`)."""


def donor_alpha(scores: Scores, axes: Axes, report: Report) -> list[Scored]:
    """One alpha for everything both anchors have, donor fill for the rest; subset and expand are scored too.

    Donor layers are both kept whole and scaled by 1 - alpha. With a nested student, so is one alpha between the larger
    anchor's subset and its prefix, that prefix itself among them.
    """
    candidates = [SUBSET, EXPAND]
    for alpha in GRID[1:]:
        candidates.append(Mix(alpha, alpha, alpha, alpha, 0.0))
        if axes.depth and alpha < 1.0:
            candidates.append(even(alpha))
    candidates.append(PATCH)
    if axes.nested:
        candidates += [Mix(alpha, alpha, alpha, 0.0, 0.0, nested=True) for alpha in GRID[1:]]
    return _score_line(candidates, scores, axes, report)


def expanded_alpha(expansion: Fill) -> Search:
    """One alpha between the larger anchor's subset and the smaller anchor, expanded in a given way."""

    def search(scores: Scores, axes: Axes, report: Report) -> list[Scored]:
        return _score_line([even(alpha, expansion) for alpha in GRID], scores, axes, report)

    return search


def _score_line(candidates: Sequence[Mix], scores: Scores, axes: Axes, report: Report) -> list[Scored]:
    distinct = list(dict.fromkeys(axes.without_absent(candidate) for candidate in candidates))
    tried = _Tried(scores, axes, report, len(distinct))
    for candidate in distinct:
        tried.whole(candidate)
    return tried.scored


@dataclass(frozen=True)
class _Space:
    """The mixtures of the larger anchor with one other model.

    Attributes:
        begin: The search starts at the best of these.
        ends: What the result is compared with on all of the text.
    """

    begin: tuple[Mix, ...]
    ends: tuple[Mix, ...]


_PREFIX: Final = Mix(1.0, 1.0, 1.0, 0.0, 0.0, nested=True)
"""The nested student's prefix alone."""

_DONOR: Final = _Space((SUBSET, Mix(0.5, 0.5, 0.5, 0.0, 0.0), PATCH), (SUBSET, EXPAND))
_NESTED: Final = _Space((Mix(0.5, 0.5, 0.5, 0.0, 0.0, nested=True), _PREFIX), (_PREFIX,))


def nested_alpha(scores: Scores, axes: Axes, report: Report) -> list[Scored]:
    """The nested student's prefix alone, and mixed with the larger anchor's subset, as `group_alpha` searches."""
    return _search([replace(_NESTED, ends=(SUBSET, _PREFIX))], scores, axes, report)


def group_alpha(scores: Scores, axes: Axes, report: Report) -> list[Scored]:
    """An alpha for each group: for one coordinate after the other, the lowest point of a parabola through three losses.

    The search starts at the best of three mixtures: the larger anchor's subset, the smaller anchor with the larger one's
    parts beside it, and the middle of both. It reads the first half of the text. Its result is then scored on all of the text,
    and so are subset and expand, unless the first half rules them out. With a nested student both are searched, mixtures with
    the smaller anchor and with it. The best is never worse than an end that was scored on all of the text.
    """
    return _search([_DONOR, _NESTED] if axes.nested else [_DONOR], scores, axes, report)


def _search(spaces: Sequence[_Space], scores: Scores, axes: Axes, report: Report) -> list[Scored]:
    """All that is scored: in each space a search on half of the text, then its result and the ends on all of it."""
    along = [axes.names(space.begin[-1].nested) for space in spaces]
    most = [
        len(space.begin) + len(_PROBES) * len(names) + 2 * len(space.ends) + 1
        for space, names in zip(spaces, along, strict=True)
    ]
    tried = _Tried(scores, axes, report, sum(most))
    for space, names in zip(spaces, along, strict=True):
        best = min(map(tried.part, space.begin), key=loss_of)
        for name in names:
            best = _along(best, name, tried)
        near = [end for end in space.ends if not loss_of(tried.part(end)) > loss_of(best) + _FAR]
        for candidate in (best.mix, *near):
            tried.whole(candidate)
    return tried.scored


def _along(best: Scored, name: str, tried: _Tried) -> Scored:
    """The best along one coordinate: of three mixtures, or the lowest point of the parabola through their losses."""
    three = [tried.part(_with(best.mix, name, value)) for value in _PROBES]
    lowest = lowest_point(*(entry.loss for entry in three))
    if lowest is not None:
        three.append(tried.part(_with(best.mix, name, lowest)))
    return min(three, key=loss_of)


def lowest_point(zero: float, half: float, one: float) -> float | None:
    """Where a parabola through the values at 0, 1/2 and 1 is lowest; None where no other point is lower by `_GAIN`."""
    bend, slope = 2 * (zero - 2 * half + one), 4 * half - 3 * zero - one
    if not (math.isfinite(bend) and bend > 0.0):
        return None
    where = round(-slope / (2 * bend) / _STEP) * _STEP
    promised = zero + slope * where + bend * where**2
    return where if 0.0 < where < 1.0 and promised < min(zero, half, one) - _GAIN else None


class _Tried:
    """What was scored, each mixture at most once on part of the text and once on all of it.

    Args:
        scores: How mixtures are scored.
        axes: Their coordinates that have an effect.
        report: Told of each.
        total: How many there will be at most.
    """

    def __init__(self, scores: Scores, axes: Axes, report: Report, total: int) -> None:
        self.scored: list[Scored] = []
        self._scores, self._axes, self._report, self._total = scores, axes, report, total
        self._known: dict[tuple[Mix, bool], Scored] = {}

    def part(self, how: Mix) -> Scored:
        """A mixture's score on the first part of the text."""
        return self._score(self._axes.without_absent(how), part=True)

    def whole(self, how: Mix) -> Scored:
        """Its score on all of it."""
        return self._score(self._axes.without_absent(how), part=False)

    def _score(self, how: Mix, *, part: bool) -> Scored:
        if (how, part) not in self._known:
            entry = Scored(how, (self._scores.part if part else self._scores.whole)(how), part)
            self._known[how, part] = entry
            self.scored.append(entry)
            count = len(self.scored)
            self._report(Progress(count, max(self._total, count), "candidates", "scoring", {"loss": entry.loss}))
        return self._known[how, part]


def best_of(scored: Sequence[Scored]) -> Scored:
    """The mixture of lowest loss on all of the text; the earliest one where several tie."""
    return min((entry for entry in scored if not entry.part), key=loss_of)


def loss_of(entry: Scored) -> float:
    """The loss to compare by; one that is no number is worse than every other (`min` would keep it if it came first)."""
    return math.inf if math.isnan(entry.loss) else entry.loss


def _with(mix: Mix, name: str, value: float) -> Mix:
    change: dict[str, Any] = {name: value}
    return replace(mix, **change)
