"""Reads the records of builds: the outcome of earlier builds, and the progress of running ones.

A record may end anywhere: a build that is killed leaves a torn last line, and no word about its end. Its lock, which the kernel
takes away from a dead process, tells whether it runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from colbuild.bounds import JSON_BYTES
from colbuild.documents import MalformedError, parse_json, read_regular, shallow
from colbuild.progress import Progress
from colbuild.run.history.build_record import RUN_ENDED, RUN_STARTED, Outcome
from colbuild.store.leases import is_held
from colbuild.store.records import LATEST

_ENDINGS: Final = ("step_finished", "step_cached", "step_failed")
_MOST: Final = 1 << 53
"""Of steps, of a process's number, and of units of work."""


@dataclass(frozen=True)
class RunningStep:
    """A step at work, in a build that runs or ended before the step did.

    Attributes:
        step: Its id.
        started: When it began, in seconds since 1970.
        progress: The last that was noted of how far it is.
    """

    step: str
    started: float
    progress: Progress | None = None


@dataclass(frozen=True)
class FailedStep:
    """A step that failed, and why."""

    step: str
    message: str


@dataclass(frozen=True)
class Run:
    """One build.

    Attributes:
        id: Its id, the name of its record and of its folder of logs.
        family: What it builds.
        outcome: What became of it.
        started: When it began, in seconds since 1970.
        ended: When it ended; of a killed one, when it last said anything; None while it runs.
        steps: How many steps its family has.
        to_run: How many of them were not in the store when it began.
        ran: Ids of the steps that ran and finished.
        cached: How many were in the store.
        failed: The steps that failed.
        current: The steps at work, or those at work when it ended early.
        error: What ended it, if it failed.
        pid: Its process, if it is known.
        spec: The family's file; None in records of older versions.
    """

    id: str
    family: str
    outcome: Outcome
    started: float
    ended: float | None
    steps: int
    to_run: int
    ran: tuple[str, ...]
    cached: int
    failed: tuple[FailedStep, ...]
    current: tuple[RunningStep, ...]
    error: str | None = None
    pid: int | None = None
    spec: str | None = None


@dataclass(frozen=True)
class History:
    """A family's builds: those that run, and the last of the others."""

    running: tuple[Run, ...] = ()
    last: Run | None = None


_PROGRESS = TypeAdapter(Progress)


def family_history(folder: Path, family: str, spec: Path | None = None) -> History:
    """The running builds of a family and its last one, from the records in `folder`, which need not exist.

    Args:
        folder: The records.
        family: Its name.
        spec: Its file: builds of another file that describes a family of the same name do not count. None: all count.
    """
    own = (None, str(spec.resolve())) if spec is not None else None
    running, last = [], None
    for path in _newest_first(folder):
        if last is not None and not is_held(path):
            continue
        run = read_run(path)
        if run is None or run.family != family or (own is not None and run.spec not in own):
            continue
        if run.outcome is Outcome.RUNNING:
            running.append(run)
        elif last is None:
            last = run
    return History(tuple(running), last)


def read_run(path: Path) -> Run | None:
    """The build behind a record; None if it is gone, or tells of no build yet."""
    # Before the lines are read: a build that ends in between is then seen with its end.
    alive = is_held(path)
    told = _Told()
    for line in _lines(path):
        told.hear(line)
    return told.run(path.stem, alive=alive)


def _newest_first(folder: Path) -> list[Path]:
    """Records, by the time in their names."""
    return sorted(folder.glob("*.jsonl"), reverse=True)


def _lines(path: Path) -> Iterator[Mapping[str, Any]]:
    """The lines of a record that can be read."""
    try:
        content = read_regular(path, JSON_BYTES)
    except (OSError, MalformedError):
        return
    for line in content.splitlines():
        try:
            value = shallow(parse_json(line))
        except MalformedError:
            continue
        if isinstance(value, dict):
            yield value


@dataclass
class _Told:
    """The facts from the lines of a record so far."""

    family: str | None = None
    started: float | None = None
    last: float = 0.0
    steps: int = 0
    to_run: int = 0
    ran: list[str] = field(default_factory=list)
    cached: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    current: dict[str, RunningStep] = field(default_factory=dict)
    outcome: Outcome | None = None
    error: str | None = None
    pid: int | None = None
    spec: str | None = None

    def hear(self, line: Mapping[str, Any]) -> None:
        """Takes a line in. Lines and fields of another version that mean nothing here are passed over."""
        now = line.get("time")
        if not isinstance(now, int | float) or not 0 <= now < LATEST:
            return
        self.last = float(now)
        self.started = self.last if self.started is None else self.started
        event, step = line.get("event"), line.get("step")
        if event == RUN_STARTED:
            self.pid = _count(line.get("pid")) or None
        elif event == "build_started":
            self.family, self.steps = str(line.get("family")), _length(line.get("steps"))
            self.spec = line.get("spec") if isinstance(line.get("spec"), str) else None
            self.to_run = _count(line.get("to_run"))
        elif event == "build_finished":
            self.outcome = Outcome.DONE
        elif event == RUN_ENDED:
            self._end(line)
        elif isinstance(step, str):
            self._hear_of_step(str(event), step, line)

    def _end(self, line: Mapping[str, Any]) -> None:
        with suppress(ValueError):
            self.outcome = Outcome(str(line.get("outcome")))
        self.error = None if line.get("message") is None else str(line["message"])

    def _hear_of_step(self, event: str, step: str, line: Mapping[str, Any]) -> None:
        if event == "step_started":
            # A step that is tried again has not failed yet.
            self.failed.pop(step, None)
            self.current[step] = RunningStep(step, self.last)
        elif event == "step_progress":
            began = self.current.get(step, RunningStep(step, self.last)).started
            self.current[step] = RunningStep(step, began, _progress(line.get("progress")))
        elif event in _ENDINGS:
            self.current.pop(step, None)
            if event == "step_finished":
                self.ran.append(step)
            elif event == "step_cached":
                self.cached += 1
            else:
                self.failed[step] = str(line.get("message"))

    def run(self, name: str, *, alive: bool) -> Run | None:
        """The build that the lines tell of."""
        if self.family is None or self.started is None:
            return None
        outcome = Outcome.RUNNING if alive else self.outcome or Outcome.KILLED
        return Run(
            id=name,
            family=self.family,
            outcome=outcome,
            started=self.started,
            ended=None if outcome is Outcome.RUNNING else self.last,
            steps=self.steps,
            to_run=self.to_run,
            ran=tuple(self.ran),
            cached=self.cached,
            failed=tuple(FailedStep(step, message) for step, message in self.failed.items()),
            current=() if outcome is Outcome.DONE else tuple(self.current.values()),
            error=self.error,
            pid=self.pid,
            spec=self.spec,
        )


def _count(value: Any) -> int:
    return value if isinstance(value, int) and 0 <= value < _MOST else 0


def _length(value: Any) -> int:
    return len(value) if isinstance(value, list) else 0


def _progress(value: Any) -> Progress | None:
    try:
        progress = _PROGRESS.validate_python(value)
    except ValidationError:
        return None
    return progress if 0 <= progress.done < _MOST and 0 <= progress.total < _MOST else None
