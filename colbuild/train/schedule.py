"""The learning rate over a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

CURVES: Final[Mapping[str, Callable[[float], float]]] = {
    "cosine": lambda share: 0.5 * (1.0 + math.cos(math.pi * share)),
    "linear": lambda share: 1.0 - share,
    "constant": lambda share: 1.0,
}
"""Schedule -> height between 1 and 0 at a share of the way from the end of the warm-up to the end of the run."""


def learning_rate(step: int, steps: int, *, peak: float, kind: str, warmup: float, final: float) -> float:
    """The learning rate of one step.

    Args:
        step: From 0.
        steps: Steps in all.
        peak: The highest rate.
        kind: A key of `CURVES`.
        warmup: Share of the steps that rise linearly to the peak.
        final: What is left of the peak at the end, as a share.
    """
    rising = round(steps * warmup)
    if step < rising:
        return peak * (step + 1) / (rising + 1)
    share = (step - rising) / max(steps - 1 - rising, 1)
    return peak * (final + (1.0 - final) * CURVES[kind](share))
