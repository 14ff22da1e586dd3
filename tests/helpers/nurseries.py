"""Nurseries for tests: one that many builds share, since importing torch takes seconds, and one without processes."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe

from colbuild.run.process.job import Job
from colbuild.run.process.nursery import Child, Nursery, open_nursery
from colbuild.run.process.worker import outcome_of


@dataclass(eq=False)
class SharedNursery:
    """A real nursery that survives the builds that use it."""

    nursery: Nursery | None = None
    fresh: Callable[[], Nursery] = open_nursery

    def __enter__(self) -> SharedNursery:
        return self

    def __exit__(self, *_: object) -> None:
        """Stays open."""

    def start(self, job: Job) -> Child:
        if self.nursery is None:
            self.nursery = self.fresh()
        return self.nursery.start(job)

    def signal(self, child: Child, number: int) -> None:
        assert self.nursery is not None
        self.nursery.signal(child, number)

    def ended_by(self, child: Child) -> int | None:
        assert self.nursery is not None
        return self.nursery.ended_by(child)

    def end_now(self) -> None:
        assert self.nursery is not None
        self.nursery.end_now()
        self.close()

    def close(self) -> None:
        if self.nursery is not None:
            self.nursery.__exit__()
            self.nursery = None


@dataclass(eq=False)
class ThreadNursery:
    """Runs each step in a thread of this process, so that a test can replace what it does."""

    asked: dict[int, threading.Event] = field(default_factory=dict)

    def __enter__(self) -> ThreadNursery:
        return self

    def __exit__(self, *_: object) -> None:
        """Leaves nothing behind."""

    def start(self, job: Job) -> Child:
        ours, theirs = Pipe(duplex=False)
        number = len(self.asked)
        self.asked[number] = threading.Event()
        threading.Thread(target=_carry_out, args=(job, theirs, self.asked[number]), daemon=True).start()
        return Child(number, ours)

    def signal(self, child: Child, number: int) -> None:
        assert number == signal.SIGTERM
        self.asked[child.number].set()

    def end_now(self) -> None:
        raise AssertionError("a thread cannot be ended")

    def ended_by(self, child: Child) -> int | None:
        return None


def _carry_out(job: Job, connection: Connection, asked: threading.Event) -> None:
    with connection:
        connection.send(outcome_of(job, connection.send, asked.is_set, lambda error: None))
