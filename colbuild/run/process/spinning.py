"""How the threads of OpenMP wait for work: they spin while a step has its cores to itself, and sleep while others want them.

A training step has thousands of short waits, and to wake a sleeping thread takes as long as a small matrix product. Threads
that spin are there at once, but against those of another process they hold up both, many times over. So it depends on what
else runs.

libgomp, the runtime that comes with torch for Linux, reads once how long threads spin, and spins less, here not at all, while
it manages more threads than there are cores (GOMP_SPINCOUNT in its manual). A thread of Python that has had work done in
parallel is managed with its own team until it ends. While such a thread is kept, all sleep; without it they spin.

Whether others want the cores, Linux tells: for each thread, how long it could run and was not let.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

_SPINS: Final = "300000"
"""As many as libgomp takes by itself: 3 to 15 ms."""

_EVERY: Final = 0.5
_CROWDED: Final = 0.08
"""Share of its time that a thread which could run was not let, from which on the cores count as wanted by others."""

_PATIENCE: Final = (3.0, 60.0)
"""Seconds without others, after which threads spin again: the first time, and at most."""

_TASKS: Final = Path("/proc/self/task")
_GRAIN: Final = 32_768
"""Elements of a tensor from which torch gives a further thread work."""


def let_threads_spin() -> None:
    """Settings, before torch is imported, of a process whose threads `watch` can put to sleep; what the user has set stays.

    Where nothing can be watched threads always sleep.
    """
    if "OMP_WAIT_POLICY" not in os.environ and _delays() is not None:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)


def watch(threads: int) -> None:
    """Begins to watch over this process, which computes with so many threads of torch, until it ends."""
    if threads > 1 and os.environ.get("GOMP_SPINCOUNT") == _SPINS and "torch" in sys.modules:
        crowd = Crowd(threads, len(os.sched_getaffinity(0)))
        threading.Thread(target=_watch, args=(Pace(threads), crowd), daemon=True, name="spinning").start()


class Crowd:
    """Threads of Python, each with a team of OpenMP's: while they are there, libgomp manages more threads than there are cores.

    Args:
        threads: The threads that torch computes with.
        cores: Those that this process may use.
    """

    def __init__(self, threads: int, cores: int) -> None:
        self._elements = threads * _GRAIN
        # With this process's own team: 1 + (threads - 1)(count + 1) > cores.
        self._count = max(1, (cores - 1) // (threads - 1))
        self._leave = threading.Event()
        self._members: list[threading.Thread] = []

    def gather(self) -> None:
        """From now on threads sleep while they wait."""
        if not self._members:
            self._leave.clear()
            self._members = [threading.Thread(target=self._stay, daemon=True) for _ in range(self._count)]
            for member in self._members:
                member.start()

    def disperse(self) -> None:
        """From now on they spin."""
        self._leave.set()
        for member in self._members:
            member.join()
        self._members = []

    def _stay(self) -> None:
        import torch

        torch.empty(self._elements).fill_(0.0)
        self._leave.wait()


class Pace:
    """Decides from what was measured whether threads should sleep.

    Args:
        threads: The threads that torch computes with.
    """

    def __init__(self, threads: int) -> None:
        self._crowded = _CROWDED * threads
        self._patience = _PATIENCE[0]
        self._since = float("inf")
        self.sleeping = False

    def tell(self, delayed: float, seconds: float) -> bool:
        """Whether threads should sleep from now on, after so many seconds in which they were delayed for `delayed` in sum."""
        first, most = _PATIENCE
        if delayed > self._crowded * seconds:
            if not self.sleeping:
                # If others were back soon, wait for longer before the next try.
                self._patience = min(2.0 * self._patience, most) if self._since < self._patience else first
            self.sleeping, self._since = True, 0.0
        else:
            self._since += seconds
            if self.sleeping and self._since >= self._patience:
                self.sleeping, self._since = False, 0.0
        return self.sleeping


def _watch(pace: Pace, crowd: Crowd) -> None:
    before, since = _delays(), time.monotonic()
    while before is not None:
        time.sleep(_EVERY)
        delays, now = _delays(), time.monotonic()
        if delays is None:
            return
        delayed = sum(delay - before.get(thread, 0.0) for thread, delay in delays.items())
        (crowd.gather if pace.tell(delayed, now - since) else crowd.disperse)()
        before, since = delays, now


def _delays() -> dict[str, float] | None:
    """For each thread of this process, how many seconds it could run and was not let; None where that is not known."""
    found = {}
    for told in _TASKS.glob("*/schedstat"):
        # The thread may have ended.
        with suppress(OSError, ValueError, IndexError):
            found[told.parent.name] = int(told.read_text(encoding="ascii").split()[1]) / 1e9
    return found or None
