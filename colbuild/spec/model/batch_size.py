"""The numbers of sequences in an optimizer step and in a micro-batch: what a recipe says, or `auto`.

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

_MEASURED_TOKENS, _MEASURED_STEP = 64_000, 1_024
"""Tokens of a training, and tokens in each of its steps; docs/method.md has the measurement."""


def sequences_for(tokens: int, sequence: int) -> int:
    """Sequences in a step, a power of two, of a training that reads `tokens` in sequences of `sequence`."""
    wanted = _MEASURED_STEP * sqrt(tokens / _MEASURED_TOKENS) / sequence
    return int(2 ** max(0, round(log2(wanted))))


def batch_of(value: object, info: ValidationInfo) -> object:
    """A validator of `batch`, which comes after `tokens` and `sequence`: a number, or `auto`."""
    if _number_or_auto("batch", value, "it follows from 'tokens'") != AUTO:
        return value
    # Where one of these is wrong, that is said instead.
    tokens, sequence = info.data.get("tokens"), info.data.get("sequence")
    return sequences_for(tokens, sequence) if isinstance(tokens, int) and isinstance(sequence, int) else 1


def micro_batch_of(value: object) -> object:
    """A validator of `micro_batch`: a number, or `auto`."""
    return _number_or_auto("micro_batch", value, "what memory allows is found")


def _number_or_auto(key: str, value: object, found: str) -> object:
    """The value, if it is one of the two; as one check, since of two that both fail neither would say what is meant."""
    if value == AUTO or (isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31):
        return value
    raise PydanticCustomError(
        "sequences",
        "'{key}' must be auto or a number of sequences, not {value}",
        {"key": key, "value": repr(value)[:60], "hint": f"write {key}: auto, and {found}"},
    )
