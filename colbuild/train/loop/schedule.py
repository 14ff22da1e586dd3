"""The learning rate over a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

CURVES: Final[Mapping[str, Callable[[float, float], float]]] = {
    "cosine": lambda share, tail: 0.5 * (1.0 + math.cos(math.pi * share)),
    "linear": lambda share, tail: 1.0 - share,
    "constant": lambda share, tail: 1.0,
    # Warm-up, stable, decay: MiniCPM, arXiv 2404.06395, section 4. Their decay is exponential; a line also reaches 0.
    "wsd": lambda share, tail: min(1.0, (1.0 - share) / tail),
}
"""Schedule -> height between 1 and 0 at a share of the way from the end of the warm-up to the end of the run.

The second number is the share of that way, at its end, in which a schedule with a decay of its own falls."""


def learning_rate(
    step: int, steps: int, *, peak: float, kind: str, warmup: float, final: float, decay: float = 0.0
) -> float:
    """The learning rate of one step.

    Args:
        step: From 0.
        steps: Steps in all.
        peak: The highest rate.
        kind: A key of `CURVES`.
        warmup: Share of the steps that rise linearly to the peak.
        final: What is left of the peak at the end, as a share.
        decay: Share of the steps, at the end, in which `wsd` falls: at least one step, at most what the warm-up leaves.
    """
    rising = round(steps * warmup)
    if step < rising:
        return peak * (step + 1) / (rising + 1)
    way = max(steps - 1 - rising, 1)
    share = (step - rising) / way
    tail = min(max(round(steps * decay), 1), way) / way
    return peak * (final + (1.0 - final) * CURVES[kind](share, tail))
