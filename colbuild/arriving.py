"""Counts data that arrives over a network, and refuses transfers that are too large or stall."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from colbuild.bounds import SLOW_BYTES, SLOW_SECONDS
from colbuild.units import format_bytes


class BoundError(OSError):
    """More arrived than may, or too little in too long a time; the message says which, about "it"."""


@dataclass(frozen=True)
class Bound:
    """A limit on the size of an input, with its reason.

    Attributes:
        bytes: The most.
        reason: Why it is that many: "the limit of an index page".
    """

    bytes: int
    reason: str

    def check(self, size: int) -> None:
        """Compares a size with it.

        Raises:
            BoundError: It is larger.
        """
        if size > self.bytes:
            raise BoundError(f"it is larger than {format_bytes(self.bytes)}, {self.reason}")


class Meter:
    """Counts the bytes of one transfer.

    Args:
        bound: How many there may be.
        clock: Seconds, from any beginning.
    """

    def __init__(self, bound: Bound, clock: Callable[[], float] = time.monotonic) -> None:
        self.seen = 0
        self._bound, self._clock = bound, clock
        self._since: float | None = None
        self._before = 0

    def add(self, count: int) -> None:
        """Counts some more.

        Raises:
            BoundError: There are too many by now, or too few came for too long.
        """
        self.seen += count
        self._bound.check(self.seen)
        now = self._clock()
        if self._since is None:
            # From the first bytes on: a server may think before it answers.
            self._since, self._before = now, self.seen
        elif now - self._since > SLOW_SECONDS:
            if self.seen - self._before < SLOW_BYTES:
                raise BoundError(f"it stalls: less than {format_bytes(SLOW_BYTES)} arrived in {SLOW_SECONDS:g} s")
            self._since, self._before = now, self.seen

    def counting(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        """The same blocks, counted. Raises what `add` raises."""
        for block in blocks:
            self.add(len(block))
            yield block


PLAIN_ENCODINGS: Final = frozenset({"", "identity"})
"""Values of the header Content-Encoding for content that is as it is."""
