"""The local executor: runs the steps of a graph that are not in the store, side by side where the machine allows it.

::

    ready ──in the store?── yes ─────────────────────────────> done ──> what waited for it is ready
              │                                                 ^
              no ──> queue ──fits beside what runs?──> its own process (see perform.py)
                       ^                                 │
                       └── retry, or an input was lost ──┘──> failed: what needs it is not built

What is published stays, whatever happens to the steps after it.
"""

from __future__ import annotations

import signal
import time
from bisect import insort
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from colbuild.errors import EXIT_FAILED, ColbuildError, StoppedError
from colbuild.events import Listener, Notice, RemoteLost, StepCached, StepFailed
from colbuild.fetch.contents import Sources
from colbuild.plan.cost.machine_resources import Demand, Resources, demand_of, first_fitting, machine
from colbuild.plan.cost.waiting import Waiting
from colbuild.plan.drawing.build_graph import BuildGraph
from colbuild.plan.drawing.keys import action_key
from colbuild.plan.drawing.parts import Parts
from colbuild.plan.drawing.step import Step
from colbuild.run.interrupts import Interrupts, counted_interrupts
from colbuild.run.process.failures import crash, last_lines
from colbuild.run.process.job import Done, Failed, InputLost, Job, Stopped, as_step
from colbuild.store import ActionRecord, Store
from colbuild.store.durable_files import safe_name
from colbuild.store.objects import DamagedTreeError

if TYPE_CHECKING:
    # A build with nothing to do starts no process, and does without their import.
    from multiprocessing.connection import Connection

    from colbuild.run.process.nursery import Child, Nursery

OnFinished = Callable[[Step, ActionRecord], None]

_LOOK_EVERY: Final = 0.25
"""Seconds between two looks whether somebody wants the build to stop."""

_END_GRACE: Final = 0.5
"""Seconds that killed processes have to be gone."""

_REBUILDS: Final = 2
"""How often a step's lost inputs are built again before it counts as failed."""


@dataclass(frozen=True)
class Options:
    """How a build is carried out; nothing of it changes a result.

    Attributes:
        jobs: How many steps run side by side at most; as many as the resources allow by default.
        keep_going: Whether what does not need a failed step is still built.
        retries: How often a step that crashed, ran out of memory or missed its source is run again.
        resources: What the build may use; the machine by default.
        remote: The URL of a remote cache to read through; None for none.
        push: Whether new results are put there.
    """

    jobs: int | None = None
    keep_going: bool = False
    retries: int = 0
    resources: Resources | None = None
    remote: str | None = None
    push: bool = False


@dataclass(frozen=True)
class Executed:
    """What came of a graph.

    Attributes:
        records: Step id -> the record of its result.
        ran: Ids of the steps that ran, in the order of the graph; the others were in the store.
    """

    records: Mapping[str, ActionRecord]
    ran: tuple[str, ...]


class StepError(ColbuildError):
    """A step failed; says which, and keeps the exit code of the reason."""

    def __init__(self, message: str, hint: str | None, exit_code: int) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code  # type: ignore[misc]


@dataclass(frozen=True)
class _Running:
    child: Child
    job: Job


@dataclass(eq=False)
class _Build:
    """The state of one build."""

    family: str
    store: Store
    sources: Sources
    listener: Listener
    finished: OnFinished
    options: Options
    resources: Resources
    memory: Mapping[str, int]
    logs: Path
    waiting: Waiting
    interrupts: Interrupts
    stack: ExitStack
    nursery: Nursery | None = None
    queue: list[str] = field(default_factory=list)
    demands: dict[str, Demand] = field(default_factory=dict)
    running: dict[Connection, _Running] = field(default_factory=dict)
    records: dict[str, ActionRecord] = field(default_factory=dict)
    ran: set[str] = field(default_factory=set)
    failed: dict[str, Failed] = field(default_factory=dict)
    stopped: dict[str, str] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    rebuilds: dict[str, int] = field(default_factory=dict)
    asked: bool = False
    remote: str | None = field(init=False)
    parts: Parts = field(init=False)

    def __post_init__(self) -> None:
        self.remote, self.parts = self.options.remote, Parts(self.store)


def execute(
    graph: BuildGraph,
    family: str,
    store: Store,
    sources: Sources,
    listener: Listener,
    finished: OnFinished,
    *,
    logs: Path,
    memory: Mapping[str, int],
    options: Options,
) -> Executed:
    """Brings every step's result into the store.

    Args:
        graph: The steps, in topological order.
        family: Its name, under which the store remembers the steps.
        store: Where results are looked up and put.
        sources: Where contents from outside come from.
        listener: Told what happens.
        finished: Called after each step with its record, cached or not.
        logs: The folder for what steps print; made when the first one runs.
        memory: Step id -> bytes that it needs at its peak, as far as that can be told.
        options: How.

    Raises:
        StepError: A step failed. Everything finished before it, or beside it, is kept.
        StoppedError: Somebody stopped the build. Everything finished is kept, and what long steps can go on from.
    """
    resources = options.resources or machine()
    store.mend()
    with counted_interrupts() as interrupts, ExitStack() as stack:
        build = _Build(
            family,
            store,
            sources,
            listener,
            finished,
            options,
            resources,
            memory,
            logs,
            Waiting(graph),
            interrupts,
            stack,
        )
        try:
            _carry_out(build)
        except KeyboardInterrupt:
            _end_at_once(build)
    if build.interrupts.count:
        raise _stopped(build)
    if build.failed:
        raise _failed(build)
    return Executed(build.records, tuple(step.id for step in graph.steps if step.id in build.ran))


def _carry_out(build: _Build) -> None:
    while True:
        if _may_start(build):
            _settle(build)
            _start(build)
        if not build.running:
            return
        _heed_interrupts(build)
        for connection in _talking(build):
            _hear(build, connection)


def open_nursery() -> Nursery:
    """Starts the process that those of the steps are forked from."""
    from colbuild.run.process import nursery

    return nursery.open_nursery()


def _talking(build: _Build) -> list[Connection]:
    """The running steps that have something to say, after a short wait for any."""
    from multiprocessing.connection import wait

    heard = wait(list(build.running), timeout=_LOOK_EVERY)
    return [connection for connection in build.running if connection in heard]


def _may_start(build: _Build) -> bool:
    return not build.interrupts.count and (build.options.keep_going or not build.failed)


def _settle(build: _Build) -> None:
    """Sorts the steps that are ready: what is in the store is done, the rest is queued."""
    for step in build.waiting.take_ready():
        read = build.parts.inputs(step, lambda needed: build.records[needed].output)
        inputs = {name: digest for name, digest in read.items() if digest is not None}
        try:
            digests = {role: build.sources.digest(uri) for role, uri in step.sources.items()}
        except ColbuildError as error:
            _fail(build, step, _refused(error))
            continue
        inputs |= {role: digest for role, digest in digests.items() if digest is not None}
        if len(inputs) == len(read) + len(step.sources):
            hit = build.store.claim(action_key(step.op, step.params, inputs))
            if hit is not None:
                build.store.note_step(build.family, as_step(hit, step))
                build.listener(StepCached(step.id, "in the store"))
                _finish(build, step, Done(hit, fresh=False))
                continue
        build.demands[step.id] = demand_of(step.op, build.memory.get(step.id, 0), build.resources)
        insort(build.queue, step.id, key=build.waiting.index)


def _start(build: _Build) -> None:
    """Starts queued steps, the first first, as far as they fit beside what runs."""
    while build.options.jobs is None or len(build.running) < build.options.jobs:
        running = {other.job.step.id: build.demands[other.job.step.id] for other in build.running.values()}
        ready = first_fitting(build.queue, build.demands, running, build.resources)
        if ready is None:
            return
        build.queue.remove(ready)
        step, demand = build.waiting.step(ready), build.demands[ready]
        taken = {number for running in build.running.values() for number in running.job.gpus}
        free = [number for number in build.resources.gpus if number not in taken]
        job = Job(
            step,
            build.waiting.index(step.id),
            len(build.waiting.graph.steps),
            build.family,
            {name: build.records[read.step].output for name, read in step.reads.items()},
            build.store.root,
            build.sources,
            demand.cores,
            tuple(free[: demand.gpus]),
            _log(build, step.id),
            build.remote,
            build.options.push,
        )
        child = _process(build, job)
        build.running[child.connection] = _Running(child, job)


def _log(build: _Build, step: str) -> Path:
    return build.logs / f"{safe_name(step)}.log"


def _process(build: _Build, job: Job) -> Child:
    """Starts a process for a job, and a nursery if there is none or it was killed: it is large, and memory may run out."""
    if build.nursery is not None:
        with suppress(OSError):
            return build.nursery.start(job)
    build.nursery = build.stack.enter_context(open_nursery())
    return build.nursery.start(job)


def _hear(build: _Build, connection: Connection) -> None:
    """Takes in what the process of a step says: events, then its outcome, then its end."""
    running = build.running[connection]
    step = running.job.step
    try:
        said = connection.recv()
    except EOFError:
        # It died before it could say how it went; whoever has said so is no longer listed.
        _end(build, running)
        code = build.nursery.ended_by(running.child) if build.nursery else None
        if build.interrupts.count:
            build.stopped[step.id] = "ended at once"
            return
        _failed_once(
            build, step, Failed(crash(code, running.job.log), None, EXIT_FAILED, transient=True, unexpected=True)
        )
        return
    if isinstance(said, Done):
        _end(build, running)
        _finish(build, step, said)
    elif isinstance(said, Failed):
        _end(build, running)
        _failed_once(build, step, said)
    elif isinstance(said, Stopped):
        _end(build, running)
        build.stopped[step.id] = said.message
    elif isinstance(said, InputLost):
        _end(build, running)
        _rebuild(build, step.reads[said.role].step, step.id, said.what)
    elif isinstance(said, RemoteLost):
        # Others may meet the same trouble at the same time; it is told once.
        if build.remote is not None:
            build.remote = None
            build.listener(said)
    else:
        build.listener(said)


def _end(build: _Build, running: _Running) -> None:
    del build.running[running.child.connection]
    running.child.connection.close()


def _finish(build: _Build, step: Step, done: Done) -> None:
    if done.fresh:
        # Its process has just read what it published.
        build.store.trust(done.record.output)
    try:
        build.finished(step, done.record)
    except DamagedTreeError as error:
        # What a model has from its home may be damaged, too.
        others = (other for other, record in build.records.items() if record.output == error.digest)
        made_by = step.id if done.record.output == error.digest else next(others, step.id)
        _rebuild(build, made_by, None if made_by == step.id else step.id, error.message)
        return
    except ColbuildError as error:
        _fail(build, step, _refused(error))
        return
    build.records[step.id] = done.record
    if done.fresh:
        build.ran.add(step.id)
    build.waiting.done(step.id)


def _failed_once(build: _Build, step: Step, failed: Failed) -> None:
    """A step failed: once more, or for good."""
    attempts = build.attempts[step.id] = build.attempts.get(step.id, 0) + 1
    if failed.transient and attempts <= build.options.retries and not build.interrupts.count:
        build.listener(Notice(f"{step.id}: {failed.message}; trying again ({attempts} of {build.options.retries})"))
        insort(build.queue, step.id, key=build.waiting.index)
        return
    _fail(build, step, failed)


def _refused(error: ColbuildError) -> Failed:
    """A failure outside the step's own process, which another run of the step would only repeat."""
    return Failed(error.message, error.hint, error.exit_code, transient=False)


def _fail(build: _Build, step: Step, failed: Failed) -> None:
    build.failed[step.id] = failed
    build.listener(StepFailed(step.id, failed.message))


def _rebuild(build: _Build, made_by: str, reader: str | None, what: str) -> None:
    """A step's result is gone or damaged: it runs again, and then what was about to read it."""
    count = build.rebuilds[made_by] = build.rebuilds.get(made_by, 0) + 1
    if count > _REBUILDS:
        hint = "the disk may be failing: see 'colbuild cache verify', or move the store with --store"
        failed = Failed(f"{what}, again and again", hint, EXIT_FAILED, transient=False)
        _fail(build, build.waiting.step(reader or made_by), failed)
        return
    build.listener(Notice(f"{what}; building it again"))
    build.waiting.again(made_by, reader)


def _heed_interrupts(build: _Build) -> None:
    """The first interrupt asks every step to stop at its next boundary; the second ends them, see `_end_at_once`."""
    if build.interrupts.count and not build.asked and build.nursery is not None:
        build.asked = True
        for running in build.running.values():
            build.nursery.signal(running.child, signal.SIGTERM)
        named = ", ".join(running.job.step.id for running in build.running.values())
        build.listener(Notice(f"stopping {named} at the next boundary; press Ctrl-C again to end at once"))


def _end_at_once(build: _Build) -> None:
    """Ends every step: with the nursery, which may still be importing and would hear of nothing."""
    if build.nursery is not None:
        build.nursery.end_now()
    ends = time.monotonic() + _END_GRACE
    for running in list(build.running.values()):
        # At the end of its connection the process is gone, and holds no lock.
        with suppress(EOFError, OSError):
            while running.child.connection.poll(max(0.0, ends - time.monotonic())):
                running.child.connection.recv()
        _end(build, running)
        build.stopped[running.job.step.id] = "ended at once"


def _stopped(build: _Build) -> StoppedError:
    lines = [f"interrupted: {len(build.records)} of {len(build.waiting.graph.steps)} steps are in the store"]
    lines += [f"  {step}: {where}" for step, where in build.stopped.items()]
    return StoppedError("\n".join(lines), hint="'colbuild build' continues from there")


def _failed(build: _Build) -> StepError:
    """What to say in the end: every failure, and what else there is to build."""
    lines = []
    ordered = sorted(build.failed.items(), key=lambda item: build.waiting.index(item[0]))
    for step, failed in ordered:
        lines.append(f"{step}: {failed.message}")
        if failed.unexpected and (told := last_lines(_log(build, step))):
            lines.append(told)
    behind = build.waiting.behind(build.failed)
    others = build.waiting.left() - behind - set(build.failed)
    first = ordered[0][1]
    hints = [first.hint] if first.hint else []
    if behind and len(build.failed) > 1:
        lines.append(f"not built, since they need these: {_named(build, behind)}")
    if others:
        count = "one other step does" if len(others) == 1 else f"{len(others)} other steps do"
        hints.append(f"{count} not need it: 'colbuild build --keep-going' builds {_named(build, others)}")
    return StepError("\n".join(lines), "; ".join(hints) or None, first.exit_code)


def _named(build: _Build, steps: set[str]) -> str:
    ordered = sorted(steps, key=build.waiting.index)
    more = f" and {len(ordered) - 3} more" if len(ordered) > 3 else ""
    return ", ".join(ordered[:3]) + more
