"""Requests to stop a build: the first stops it at the next boundary, the second ends it immediately."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Final

_ASKING: Final = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Ctrl-C, a request to end, and the end of the terminal."""


@dataclass(eq=False)
class Interrupts:
    """The number of requests to stop the build."""

    count: int = field(default=0)

    def hear(self, number: int, frame: FrameType | None) -> None:
        """Counts one.

        Raises:
            KeyboardInterrupt: It is the second, or a later one: nothing that this process is at goes on.
        """
        if self.count and number != signal.SIGINT and number != signal.SIGTERM:
            # A terminal that is closed may say so more than once.
            return
        self.count += 1
        if self.count > 1:
            raise KeyboardInterrupt


@contextmanager
def counted_interrupts() -> Iterator[Interrupts]:
    """Counts instead of interrupting, inside the block. In a thread other than the main one nothing is heard.

    What was ignored before stays ignored, as `nohup` wants it; but for Ctrl-C, which shells have every process in their
    background ignore.
    """
    heard = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield heard
        return
    hangup = getattr(signal, "SIGHUP", None)
    asking = [number for number in _ASKING if number != hangup or signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, heard.hear) for number in asking}
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
