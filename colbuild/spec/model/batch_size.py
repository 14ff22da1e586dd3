"""The number of sequences in an optimizer step: what a recipe says, or what follows from its tokens.

With few tokens many small steps learn more than few large ones; with many tokens large steps learn as much from a token and
take less time. Where the two meet depends on the number of tokens, not on the model (Zhang et al., arXiv 2410.21676); here it
is taken to grow as the square root of it.
"""

from __future__ import annotations

from math import log2, sqrt
from typing import Final

from pydantic import ValidationInfo
from pydantic_core import PydanticCustomError

AUTO: Final = "auto"

_MEASURED_TOKENS, _MEASURED_STEP = 64_000, 512
"""Tokens of a training, and tokens in each of its steps; docs/method.md has the measurement."""


def sequences_for(tokens: int, sequence: int) -> int:
    """Sequences in a step, a power of two, of a training that reads `tokens` in sequences of `sequence`."""
    wanted = _MEASURED_STEP * sqrt(tokens / _MEASURED_TOKENS) / sequence
    return int(2 ** max(0, round(log2(wanted))))


def sequences(value: object, info: ValidationInfo) -> object:
    """A validator of `batch`, which comes after `tokens` and `sequence`: a number, or `auto`."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31:
        return value
    if value != AUTO:
        raise PydanticCustomError(
            "batch",
            "'batch' must be auto or a number of sequences, not {value}",
            {"value": repr(value)[:60], "hint": "write batch: auto, and it follows from 'tokens'"},
        )
    # Where one of these is wrong, that is said instead.
    tokens, sequence = info.data.get("tokens"), info.data.get("sequence")
    return sequences_for(tokens, sequence) if isinstance(tokens, int) and isinstance(sequence, int) else 1
