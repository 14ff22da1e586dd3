"""Ctrl-C during a build: the first asks it to stop, the second ends it at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType


@dataclass(eq=False)
class Interrupts:
    """How often somebody has asked the build to stop, by Ctrl-C or by SIGTERM."""

    count: int = field(default=0)

    def hear(self, number: int, frame: FrameType | None) -> None:
        """Counts one."""
        self.count += 1


@contextmanager
def counted_interrupts() -> Iterator[Interrupts]:
    """Counts instead of interrupting, inside the block. In a thread other than the main one nothing is heard."""
    heard = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield heard
        return
    before = {number: signal.signal(number, heard.hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
