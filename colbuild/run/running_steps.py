"""The processes of running steps."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from colbuild.run.process.job import Job, Outcome

if TYPE_CHECKING:
    # A build with nothing to do starts no process, and does without their import.
    from multiprocessing.connection import Connection

    from colbuild.run.process.nursery import Child, Nursery

_LOOK_EVERY: Final = 0.25
"""Seconds between two looks whether somebody wants the build to stop."""

_END_GRACE: Final = 0.5
"""Seconds that killed processes have to be gone."""


@dataclass(frozen=True)
class Ended:
    """A process died before it could say how its step went; `code` as `Nursery.ended_by` has it."""

    code: int | None


@dataclass(eq=False)
class RunningSteps:
    """Starts processes and hears them.

    Attributes:
        open_nursery: Starts the process that those of the steps are forked from.
        stack: Ends it.
    """

    open_nursery: Callable[[], Nursery]
    stack: ExitStack
    _nursery: Nursery | None = field(default=None, init=False)
    _running: dict[Connection, tuple[Child, Job]] = field(default_factory=dict, init=False)
    _asked: bool = field(default=False, init=False)

    @property
    def jobs(self) -> list[Job]:
        """The jobs of the processes."""
        return [job for _, job in self._running.values()]

    def start(self, job: Job) -> None:
        """Starts a process for a job, and a nursery if there is none or it was killed: it is large, and memory may run out."""
        child = self._forked(job)
        self._running[child.connection] = (child, job)

    def _forked(self, job: Job) -> Child:
        if self._nursery is not None:
            with suppress(OSError):
                return self._nursery.start(job)
        self._nursery = self.stack.enter_context(self.open_nursery())
        return self._nursery.start(job)

    def talking(self) -> list[Connection]:
        """Returns the connections with messages, after a short wait for any."""
        from multiprocessing.connection import wait

        heard = wait(list(self._running), timeout=_LOOK_EVERY)
        return [connection for connection in self._running if connection in heard]

    def hear(self, connection: Connection) -> tuple[Job, Any]:
        """Takes in what a process says: an event, the step's `Outcome`, or `Ended`; the last two are its last words."""
        child, job = self._running[connection]
        try:
            said = connection.recv()
        except EOFError:
            # Whoever has said its outcome is no longer listed.
            self._forget(child)
            return job, Ended(self._nursery.ended_by(child) if self._nursery else None)
        if isinstance(said, Outcome):
            self._forget(child)
        return job, said

    def ask_to_stop(self) -> list[str]:
        """Asks every step once to stop at its next boundary; returns their ids, none where that was done before."""
        if self._asked or self._nursery is None:
            return []
        self._asked = True
        for child, _ in self._running.values():
            self._nursery.signal(child, signal.SIGTERM)
        return [job.step.id for job in self.jobs]

    def end_at_once(self) -> list[str]:
        """Ends every step, and returns their ids: with the nursery, which may still be importing and would hear of nothing."""
        if self._nursery is not None:
            self._nursery.end_now()
        ends = time.monotonic() + _END_GRACE
        ended = []
        for child, job in list(self._running.values()):
            # At the end of its connection the process is gone, and holds no lock.
            with suppress(EOFError, OSError):
                while child.connection.poll(max(0.0, ends - time.monotonic())):
                    child.connection.recv()
            self._forget(child)
            ended.append(job.step.id)
        return ended

    def _forget(self, child: Child) -> None:
        del self._running[child.connection]
        child.connection.close()
