"""Searches for the best mixture of two anchors, by the loss on calibration tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from colbuild.progress import Progress, Report
from colbuild.weights.mixing.mixture import EXPAND, PATCH, SUBSET, Fill, Mix, even

GRID = (0.0, 0.25, 0.5, 0.75, 1.0)
_FINE = 0.125


@dataclass(frozen=True)
class Scored:
    """A mixture and its loss in nats per token."""

    mix: Mix
    loss: float


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

Search = Callable[[Score, Axes, Report], list[Scored]]
"""What tries mixtures: all that it has scored."""


def donor_alpha(score: Score, axes: Axes, report: Report) -> list[Scored]:
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
        candidates += _nested_line()
    return _score_line(candidates, score, axes, report)


def expanded_alpha(expansion: Fill) -> Search:
    """One alpha between the larger anchor's subset and the smaller anchor, expanded in a given way."""

    def search(score: Score, axes: Axes, report: Report) -> list[Scored]:
        return _score_line([even(alpha, expansion) for alpha in GRID], score, axes, report)

    return search


def nested_alpha(score: Score, axes: Axes, report: Report) -> list[Scored]:
    """The nested student's prefix alone, and mixed with the larger anchor's subset: with one alpha, then one for each group."""
    scored = _score_line([SUBSET, *_nested_line()], score, axes, report)
    return _descend(scored, [(True, axes.names(nested=True))], score, report)


def group_alpha(score: Score, axes: Axes, report: Report) -> list[Scored]:
    """An alpha for each group: coordinate descent over a coarse grid from the best single alpha, then finer steps.

    With a nested student both are searched, mixtures with the smaller anchor and with it. Never worse than the candidates
    of `donor_alpha`, subset and expand among them, on the tokens it is scored with.
    """
    scored = donor_alpha(score, axes, report)
    searches = [(nested, axes.names(nested)) for nested in ((False, True) if axes.nested else (False,))]
    return _descend(scored, searches, score, report)


def _nested_line() -> list[Mix]:
    return [Mix(alpha, alpha, alpha, 0.0, 0.0, nested=True) for alpha in GRID[1:]]


def _score_line(candidates: Sequence[Mix], score: Score, axes: Axes, report: Report) -> list[Scored]:
    distinct = list(dict.fromkeys(axes.without_absent(candidate) for candidate in candidates))
    return _score_all(distinct, score, report, len(distinct))


def _descend(
    scored: list[Scored], searches: Sequence[tuple[bool, tuple[str, ...]]], score: Score, report: Report
) -> list[Scored]:
    """What was scored, and what coordinate descent from the best of it tries: (in nested mixtures, along which names)."""
    budget = len(scored) + sum(len(names) for _, names in searches) * (len(GRID) + 1)
    for nested, names in searches:
        for values in (_coarse, _fine):
            for name in names:
                best = min((entry for entry in scored if entry.mix.nested == nested), key=loss_of)
                known = {entry.mix for entry in scored}
                candidates = [_with(best.mix, name, value) for value in values(getattr(best.mix, name))]
                new = [candidate for candidate in candidates if candidate not in known]
                scored += _score_all(new, score, report, budget, len(scored))
    return scored


def best_of(scored: Sequence[Scored]) -> Scored:
    """The mixture of lowest loss; the earliest one where several tie."""
    return min(scored, key=loss_of)


def _score_all(mixes: Sequence[Mix], score: Score, report: Report, total: int, done: int = 0) -> list[Scored]:
    scored = []
    for candidate in mixes:
        scored.append(Scored(candidate, score(candidate)))
        count = done + len(scored)
        report(Progress(count, max(total, count), "candidates", "scoring", {"loss": scored[-1].loss}))
    return scored


def loss_of(entry: Scored) -> float:
    """The loss to compare by; one that is no number is worse than every other (`min` would keep it if it came first)."""
    return math.inf if math.isnan(entry.loss) else entry.loss


def _with(mix: Mix, name: str, value: float) -> Mix:
    change: dict[str, Any] = {name: value}
    return replace(mix, **change)


def _coarse(_: float) -> tuple[float, ...]:
    return GRID


def _fine(value: float) -> tuple[float, ...]:
    return tuple(near for near in (value - _FINE, value + _FINE) if 0.0 <= near <= 1.0)
