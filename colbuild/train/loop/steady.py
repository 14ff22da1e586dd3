"""Detects a diverged training: NaN, or an exploding loss."""

from __future__ import annotations

import math
from collections.abc import Sequence

WATCHED = 20
"""Readings whose mean tells what a usual loss is."""

_SETTLED = 5
_TIMES, _NATS = 3.0, 2.0
_NATS_BEFORE = 10.0
"""How much more a loss may be before the usual one is known: a first few batches may differ, but not as an explosion does."""


def trouble(losses: Sequence[float], loss: float, norm: float) -> str | None:
    """Returns the reason to discard a step; None if the step is good.

    Args:
        losses: Of the steps that were taken.
        loss: Of this one, in nats per token.
        norm: Of its gradient. A loss can be finite and its gradient not.
    """
    if not math.isfinite(loss):
        return f"the loss is {loss}"
    if not math.isfinite(norm):
        return f"the gradient's norm is {norm}"
    if losses:
        recent = losses[-WATCHED:]
        usual = sum(recent) / len(recent)
        # Of texts in one corpus none is so much harder than the mean of a batch before it.
        if loss > _TIMES * usual + (_NATS if len(losses) >= _SETTLED else _NATS_BEFORE):
            return f"the loss has exploded from {usual:.3g} to {loss:.3g}"
    return None
