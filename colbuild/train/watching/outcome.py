"""Compares the end of a training with its start, on the same held-out text.

Only the start and the end are compared. How often a training measures itself on the way (`evaluate_every`) is in no key, so
weights from there must not become its result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import stdev
from typing import Final

from colbuild.train.watching.measure import HeldOut

LEAST: Final = 0.05
"""Nats per token by which an end has to be above its start before it counts as worse."""

ERRORS: Final = 2.0
"""And so many standard errors of the difference, over the windows that both were measured on."""

ALONE: Final = 0.5
"""What takes the place of both where there is one window only, which tells no error."""

ON_POLICY: Final = 0.5
"""What takes the place of `LEAST` where a student learns from its own text: it gives up what its teacher finds merely possible,
so that the loss on other text may rise although its own text gets better."""


@dataclass(frozen=True)
class Worsened:
    """A training that ended worse than it began, so that its start is its result.

    Attributes:
        start: Its loss on held-out text before, in nats per token.
        end: Afterwards.
        noise: By how much the end may be above the start.
    """

    start: float
    end: float
    noise: float


def worsened(start: HeldOut | None, end: HeldOut | None, least: float = LEAST) -> Worsened | None:
    """Returns the losses of a training whose end is worse than its start by more than noise; else None.

    Args:
        start: Measured before the first step; None where there is no held-out text.
        end: Measured on the same windows after the last one.
        least: Nats per token that are noise in any case.
    """
    if start is None or end is None or not math.isfinite(start.loss):
        return None
    noise = _noise([after - before for before, after in zip(start.windows, end.windows, strict=True)], least)
    # A loss that is NaN is not within the noise either.
    return None if end.loss <= start.loss + noise else Worsened(start.loss, end.loss, noise)


def _noise(differences: list[float], least: float) -> float:
    if len(differences) < 2:
        return ALONE
    if not all(map(math.isfinite, differences)):
        return least
    return max(least, ERRORS * stdev(differences) / math.sqrt(len(differences)))
