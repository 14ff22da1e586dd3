"""The record of a build: every event as a JSON line in the store, with the time it came.

The file is locked (`flock`) as long as its build lives, so that another process can tell a running build from a killed one; see
`colbuild.run.history.history` for the reader. The first line is of the record itself, `run_started`, and so is the last,
`run_ended`. Progress would be most of it, so of each step one line in ten seconds is written.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, TextIO

from colbuild.errors import ColbuildError, StoppedError
from colbuild.events import VERSION, Event, Listener, SourceProgress, StepProgress, event_to_json
from colbuild.store.durable_files import storage_errors

PROGRESS_EVERY: Final = 10.0
"""Seconds between two lines about the progress of one step."""

RUN_STARTED: Final = "run_started"
RUN_ENDED: Final = "run_ended"


class Outcome(StrEnum):
    """The outcome of a build."""

    DONE = "done"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    RUNNING = "running"
    KILLED = "killed"


@dataclass
class Recording:
    """A listener that writes what it hears to the record of a run and passes it on.

    Attributes:
        id: The run's, which is also the name of its record without the ending.
        listener: Who is told everything.
    """

    id: str
    listener: Listener
    _file: TextIO
    _clock: Callable[[], float] = time.monotonic
    _said: dict[str, float] = field(default_factory=dict)

    def __call__(self, event: Event) -> None:
        """Hears an event."""
        if self._is_worth_a_line(event):
            self.write(event_to_json(event))
        self.listener(event)

    def write(self, values: Mapping[str, Any]) -> None:
        """Writes a line. A disk that refuses ends the record, not the build: that finds out itself what it cannot do."""
        line = json.dumps({**values, "time": round(time.time(), 3)}, ensure_ascii=False) + "\n"
        with suppress(OSError):
            self._file.write(line)
            self._file.flush()

    def _is_worth_a_line(self, event: Event) -> bool:
        if not isinstance(event, StepProgress | SourceProgress):
            return True
        name = event.step if isinstance(event, StepProgress) else event.uri
        now = self._clock()
        if now - self._said.get(name, float("-inf")) < PROGRESS_EVERY:
            return False
        self._said[name] = now
        return True


@contextmanager
def recorded(listener: Listener, folder: Path, clock: Callable[[], float] = time.monotonic) -> Iterator[Recording]:
    """A listener that also writes what it hears to a new file in `folder`, and at the end how the block ended.

    Raises:
        BuildError: The file cannot be made.
    """
    with storage_errors(folder):
        path, file = _new_file(folder)
    recording = Recording(path.stem, listener, file, clock)
    outcome, error = Outcome.DONE, None
    try:
        recording.write({"event": RUN_STARTED, "v": VERSION, "id": path.stem, "pid": os.getpid()})
        yield recording
    except BaseException as raised:
        outcome, error = _outcome(raised)
        raise
    finally:
        recording.write({"event": RUN_ENDED, "v": VERSION, "outcome": str(outcome), "message": error})
        with suppress(OSError):
            file.close()


def _new_file(folder: Path) -> tuple[Path, TextIO]:
    """A new file, named by the time, whose lock this process holds until it closes it or ends."""
    while True:
        now = time.time_ns()
        second, rest = divmod(now, 1_000_000_000)
        path = folder / f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(second))}-{rest // 1000:06d}.jsonl"
        with suppress(FileExistsError):
            file = path.open("x", encoding="utf-8")
            with suppress(OSError):
                # A file system without locks: such a build is shown as killed until it ends.
                fcntl.flock(file, fcntl.LOCK_EX)
            return path, file


def _outcome(raised: BaseException) -> tuple[Outcome, str | None]:
    """How a build ended that raised something, and its message."""
    reason: BaseException | None = raised
    while reason is not None:
        if isinstance(reason, StoppedError | KeyboardInterrupt):
            return Outcome.INTERRUPTED, None
        reason = reason.__cause__
    if isinstance(raised, ColbuildError):
        return Outcome.FAILED, raised.message
    return Outcome.FAILED, f"{type(raised).__name__}: {raised}"
