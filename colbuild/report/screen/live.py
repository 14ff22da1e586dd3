"""Shows a running build: a bar on a terminal, plain lines elsewhere, JSON lines for machines."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TextIO

from colbuild.events import (
    BuildFinished,
    BuildStarted,
    Event,
    Listener,
    Notice,
    Packaged,
    RemoteLost,
    SourceProgress,
    StepCached,
    StepFailed,
    StepFinished,
    StepProgress,
    StepStarted,
    event_to_json,
)
from colbuild.progress import Progress
from colbuild.report.screen.ledger_view import told_ledger
from colbuild.report.screen.printed import shown_json
from colbuild.units import format_bytes, format_count, format_duration

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

Clock = Callable[[], float]

_LINE_EVERY: Final = 10.0
"""Seconds between two plain lines about the same work, unless a quarter of it is reached."""

_BAR_WIDTH: Final = 24


def json_listener(stream: TextIO) -> Listener:
    """Writes each event as a line of JSON, at once."""

    def listen(event: Event) -> None:
        stream.write(shown_json(event_to_json(event)) + "\n")
        stream.flush()

    return listen


def plain_listener(console: Console, clock: Clock = time.monotonic) -> Listener:
    """Lines for logs, in ASCII but for names: the start and end of each step, and now and then how far it is.

    Of a piece of work there is at most one line in ten seconds, and always one at 25, 50 and 75%.
    """
    return _Plain(lambda line: console.print(line, soft_wrap=True, markup=False, highlight=False), clock).listen


@contextmanager
def live_listener(console: Console, clock: Clock = time.monotonic) -> Iterator[Listener]:
    """A line for each finished step, and below them a bar for the one that runs; the bar is gone at the end."""
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (
        SpinnerColumn("line" if console.options.ascii_only else "dots"),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
        BarColumn(_BAR_WIDTH),
        TextColumn("{task.fields[detail]}", markup=False, style="dim"),
    )
    with Bars(*columns, console=console, transient=True, get_time=clock) as bars:
        yield _Live(bars, clock).listen


def event_listener(console: Console) -> AbstractContextManager[Listener]:
    """Returns a listener that shows events to people: bars on a terminal, plain lines elsewhere."""
    return live_listener(console) if console.is_terminal else nullcontext(plain_listener(console))


# -- speed ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pace:
    """The pace of work: units per second and seconds left; None if unknown."""

    rate: float | None = None
    left: float | None = None


@dataclass
class Meter:
    """Measures one piece of work after the other, from each one's first report on.

    What happened before the first report, such as loading a model, does not count as slow work.
    """

    clock: Clock
    _last: Progress | None = field(default=None, init=False)
    _start: tuple[float, int] = field(default=(0.0, 0), init=False)

    def is_new(self, progress: Progress) -> bool:
        """Returns whether a report begins another piece of work; a phase's name may change within one."""
        last = self._last
        return last is None or (last.unit, last.total) != (progress.unit, progress.total) or progress.done < last.done

    def measure(self, progress: Progress) -> Pace:
        """The pace, with this report taken in."""
        now = self.clock()
        if self.is_new(progress):
            self._start = (now, progress.done)
        self._last = progress
        seconds, done = now - self._start[0], progress.done - self._start[1]
        if seconds <= 0.0 or done <= 0:
            return Pace()
        rate = done / seconds
        return Pace(rate, (progress.total - progress.done) / rate if progress.total >= progress.done else None)


def describe(progress: Progress, pace: Pace) -> str:
    """Progress in words: "training, 1.5M of 20.0M tokens, 1.8k tokens/s, loss 3.91, 12 min left"."""
    parts = [progress.phase] if progress.phase else []
    if progress.total:
        parts.append(f"{_amount(progress.done, progress.unit, bare=True)} of {_amount(progress.total, progress.unit)}")
    elif progress.done:
        parts.append(_amount(progress.done, progress.unit))
    if pace.rate is not None:
        parts.append(f"{_rate(pace.rate, progress.unit)}/s")
    parts += [f"{name.replace('_', ' ')} {value:.4g}" for name, value in progress.metrics.items()]
    if pace.left is not None and progress.done < progress.total:
        parts.append(f"{format_duration(pace.left)} left")
    return ", ".join(parts)


def _amount(number: int, unit: str, *, bare: bool = False) -> str:
    if unit == "bytes":
        return format_bytes(number)
    return format_count(number) if bare else f"{format_count(number)} {unit}"


def _rate(rate: float, unit: str) -> str:
    if rate < 10 and unit != "bytes":
        return f"{rate:.2g} {unit}"
    return _amount(round(rate), unit)


def _finished(event: StepFinished) -> str:
    """What came of a step; early cutoff is said aloud."""
    same = ", same result as before; nothing after it runs for this reason" if event.same else ""
    told = told_ledger(event.ledger)
    return f"{format_duration(event.seconds)}, {format_bytes(event.size)}{', ' if told else ''}{told}{same}"


def _source(uri: str) -> str:
    """What a source is called in a narrow place: the last part of its address."""
    return uri.rstrip("/").rsplit("/", 1)[-1] or uri


# -- plain lines ------------------------------------------------------------------------------------------------------


@dataclass
class _Lines:
    """Decides which reports about one thing become lines."""

    meter: Meter
    _said: float = field(default=float("-inf"), init=False)
    _quarter: int = field(default=0, init=False)

    def line(self, progress: Progress) -> str | None:
        fresh = self.meter.is_new(progress)
        pace = self.meter.measure(progress)
        quarter = 4 * progress.done // progress.total if progress.total else 0
        passed = 0 if fresh else self._quarter
        self._quarter = quarter
        now = self.meter.clock()
        # The end of the work is told by the end of the step.
        reached = passed < quarter < 4
        if not reached and now - self._said < _LINE_EVERY:
            return None
        self._said = now
        share = f"{100 * progress.done // progress.total}%, " if progress.total else ""
        return share + describe(progress, pace)


@dataclass
class _Plain:
    write: Callable[[str], None]
    clock: Clock
    _family: BuildStarted | None = field(default=None, init=False)
    _lines: dict[str, _Lines] = field(default_factory=dict, init=False)

    def listen(self, event: Event) -> None:
        line = self._line(event)
        if line is not None:
            self.write(line)

    def _line(self, event: Event) -> str | None:
        if isinstance(event, BuildStarted):
            self._family = event
            return f"{event.family}: {event.to_run} of {len(event.steps)} steps to run" if event.to_run else None
        if isinstance(event, StepStarted):
            self._lines[event.step] = _Lines(Meter(self.clock))
            return f"[{event.index + 1}/{event.total}] {event.step}"
        if isinstance(event, StepProgress):
            return self._progress(event.step, event.step, event.progress)
        if isinstance(event, SourceProgress):
            return self._progress(f"source {event.uri}", _source(event.uri), event.progress)
        if isinstance(event, StepFinished):
            return f"  {event.step}: done in {_finished(event)}"
        if isinstance(event, StepFailed):
            # The reason is told once, as the error that ends the command.
            return f"  {event.step}: failed"
        return _common(event, self._family, "= ")

    def _progress(self, key: str, name: str, progress: Progress) -> str | None:
        line = self._lines.setdefault(key, _Lines(Meter(self.clock))).line(progress)
        return None if line is None else f"  {name}: {line}"


def _common(event: Event, build: BuildStarted | None, cached: str) -> str | None:
    """The lines that look the same everywhere; cached steps are silent when nothing else would be said."""
    if isinstance(event, StepCached):
        return None if build is None or build.to_run == 0 else f"{cached}{event.step}: {event.why}"
    if isinstance(event, Packaged):
        line = f"  package {event.model}/{event.profile}: {format_bytes(event.size)} in {event.folder}"
        return "\n".join([line, *(f"  warning: {event.model}/{event.profile}: {one}" for one in event.broken)])
    if isinstance(event, RemoteLost):
        return f"{event.message}; continuing without the remote cache"
    if isinstance(event, Notice):
        return event.message
    return None


# -- a terminal -------------------------------------------------------------------------------------------------------


@dataclass
class _Task:
    """A bar on the screen."""

    id: TaskID
    name: str
    meter: Meter
    started: float
    last: Progress | None = None


@dataclass
class _Live:
    bars: Bars
    clock: Clock
    _build: BuildStarted | None = field(default=None, init=False)
    _tasks: dict[str, _Task] = field(default_factory=dict, init=False)

    def listen(self, event: Event) -> None:
        if isinstance(event, SourceProgress):
            self._update(event.uri, _source(event.uri), event.progress)
            return
        self._end_sources(all_of_them=isinstance(event, BuildFinished))
        if isinstance(event, StepProgress):
            self._update(event.step, event.step, event.progress)
            return
        if isinstance(event, BuildStarted):
            self._build = event
        elif isinstance(event, StepStarted):
            self._begin(event.step, f"[{event.index + 1}/{event.total}] {event.step}")
        elif isinstance(event, StepFinished):
            self._end(event.step)
            self._mark("ok", event.step, _finished(event))
        elif isinstance(event, StepFailed):
            self._end(event.step)
            self._mark("failed", event.step, "failed")
        else:
            self._say(_common(event, self._build, "  = "), "dim" if isinstance(event, StepCached) else "")

    def _begin(self, key: str, name: str) -> _Task:
        # No total yet: the bar pulses.
        task = _Task(self.bars.add_task(name, total=None, detail=""), name, Meter(self.clock), self.clock())
        self._tasks[key] = task
        return task

    def _update(self, key: str, name: str, progress: Progress) -> None:
        task = self._tasks.get(key) or self._begin(key, name)
        task.last = progress
        detail = describe(progress, task.meter.measure(progress))
        self.bars.update(task.id, completed=progress.done, total=progress.total or None, detail=detail)

    def _end(self, key: str) -> _Task | None:
        task = self._tasks.pop(key, None)
        if task is not None:
            self.bars.remove_task(task.id)
            self.bars.refresh()
        return task

    def _end_sources(self, *, all_of_them: bool) -> None:
        """A source has no event for its end: it ends when it is whole and something else happens.

        Something else may be another step beside it, so one that is not whole goes on.
        """
        steps = self._build.steps if self._build is not None else ()
        for key in [key for key in self._tasks if key not in steps]:
            last = self._tasks[key].last
            if not all_of_them and last is not None and last.done < last.total:
                continue
            task = self._end(key)
            if task is not None and task.last is not None and task.last.done:
                took = format_duration(self.clock() - task.started)
                self._mark("ok", task.name, f"{took}, {_amount(task.last.done, task.last.unit)}")

    def _mark(self, kind: str, name: str, rest: str) -> None:
        from rich.text import Text

        plain = self.bars.console.options.ascii_only
        marks = {"ok": ("+" if plain else "✓", "green"), "failed": ("x" if plain else "✗", "red")}
        mark, style = marks[kind]
        self.bars.console.print(Text.assemble("  ", (mark, style), f" {name}  ", (rest, "dim")), soft_wrap=True)

    def _say(self, line: str | None, style: str) -> None:
        from rich.text import Text

        if line is not None:
            self.bars.console.print(Text(line, style=style), soft_wrap=True)
