"""The progress of a step: the one value that long work reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """A point in a step's work.

    Attributes:
        done: Units finished so far.
        total: Units in all; 0 when unknown.
        unit: What is counted: "tokens", "bytes", "documents", "candidates".
        phase: What is being done, in a word or two ("downloading", "training"); may be empty.
        metrics: Readings worth showing beside the bar, such as {"loss": 3.9}.
    """

    done: int
    total: int
    unit: str
    phase: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)


Report = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """A report that goes nowhere, for calls whose progress nobody watches."""


def never() -> bool:
    """For work that nobody is going to stop."""
    return False
