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

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from colbuild.errors import EXIT_FAILED, ColbuildError
from colbuild.events import Notice, RemoteLost, StepCached, StepFailed
from colbuild.plan.cost.waiting import Waiting
from colbuild.plan.drawing.keys import action_key
from colbuild.plan.drawing.parts import Parts
from colbuild.plan.drawing.step import Step
from colbuild.run.build_outcome import Executed, Outcomes
from colbuild.run.build_request import BuildRequest
from colbuild.run.interrupts import Interrupts, counted_interrupts
from colbuild.run.process.failures import crash
from colbuild.run.process.job import Done, Failed, InputLost, Job, Stopped, as_step
from colbuild.run.running_steps import Ended, RunningSteps
from colbuild.run.step_queue import StepQueue
from colbuild.store.objects import DamagedTreeError

if TYPE_CHECKING:
    # A build with nothing to do starts no process, and does without its import.
    from colbuild.run.process.nursery import Nursery


@dataclass(eq=False)
class _Build:
    """One build: what is asked, what is still to do, what runs, and what came of it.

    Attributes:
        request: What is asked.
        queue: What is still to do.
        running: What runs.
        interrupts: How often somebody asked to stop it.
        outcomes: What came of it.
        parts: Digests of parts of results, worked out once.
        remote: The URL of a remote cache that is read through; None for none, and once it was lost.
    """

    request: BuildRequest
    queue: StepQueue
    running: RunningSteps
    interrupts: Interrupts
    outcomes: Outcomes = field(default_factory=Outcomes)
    parts: Parts = field(init=False)
    remote: str | None = field(init=False)

    def __post_init__(self) -> None:
        self.parts, self.remote = Parts(self.request.store), self.request.options.remote

    @property
    def waiting(self) -> Waiting:
        """The steps that the remaining steps wait for."""
        return self.queue.waiting


def execute(request: BuildRequest) -> Executed:
    """Carries a request out.

    Raises:
        StepError: A step failed. Everything finished before it, or beside it, is kept.
        StoppedError: Somebody stopped the build. Everything finished is kept, and what long steps can go on from.
    """
    request.store.mend()
    with counted_interrupts() as interrupts, ExitStack() as stack:
        build = _Build(request, StepQueue(Waiting(request.graph)), RunningSteps(open_nursery, stack), interrupts)
        try:
            _carry_out(build)
        except KeyboardInterrupt:
            _note_ended(build, build.running.end_at_once())
            if not interrupts.count:
                # It comes from a listener, which wants to be rid of the build.
                raise
    if interrupts.count:
        raise build.outcomes.interrupted(request)
    if build.outcomes.failed:
        raise build.outcomes.failures(request, build.waiting)
    return build.outcomes.executed(request)


def open_nursery() -> Nursery:
    """Starts the process that those of the steps are forked from."""
    from colbuild.run.process import nursery

    return nursery.open_nursery()


def _carry_out(build: _Build) -> None:
    while True:
        if _may_start(build):
            _settle(build)
            _start(build)
        if not build.running.jobs:
            return
        _heed_interrupts(build)
        for connection in build.running.talking():
            _hear(build, *build.running.hear(connection))


def _may_start(build: _Build) -> bool:
    return not build.interrupts.count and (build.request.options.keep_going or not build.outcomes.failed)


def _settle(build: _Build) -> None:
    """Sorts the steps that are ready: what is in the store is done, the rest is queued."""
    request = build.request
    for step in build.waiting.take_ready():
        read = build.parts.inputs(step, lambda needed: build.outcomes.records[needed].output)
        inputs = {name: digest for name, digest in read.items() if digest is not None}
        try:
            digests = {role: request.sources.digest(uri) for role, uri in step.sources.items()}
        except ColbuildError as error:
            _fail(build, step, _refused(error))
            continue
        inputs |= {role: digest for role, digest in digests.items() if digest is not None}
        if len(inputs) == len(read) + len(step.sources):
            hit = request.store.claim(action_key(step.op, step.params, inputs))
            if hit is not None:
                request.store.note_step(request.family, as_step(hit, step))
                request.listener(StepCached(step.id, "in the store"))
                _finish(build, step, Done(hit, fresh=False))
                continue
        build.queue.put(step.id, request.demand(step))


def _start(build: _Build) -> None:
    """Starts queued steps, the first first, as far as they fit beside what runs."""
    request = build.request
    while request.options.jobs is None or len(build.running.jobs) < request.options.jobs:
        running = build.running.jobs
        step = build.queue.take_fitting([job.step.id for job in running], request.resources)
        if step is None:
            return
        demand = build.queue.demands[step.id]
        taken = {number for job in running for number in job.gpus}
        free = [number for number in request.resources.gpus if number not in taken]
        job = Job(
            step,
            build.waiting.index(step.id),
            len(request.graph.steps),
            request.family,
            {name: build.outcomes.records[read.step].output for name, read in step.reads.items()},
            request.store.root,
            request.sources,
            demand.cores,
            tuple(free[: demand.gpus]),
            request.log(step.id),
            build.remote,
            request.options.push,
        )
        build.running.start(job)


def _hear(build: _Build, job: Job, said: Any) -> None:
    """Takes in what the process of a step says: events, then its outcome, then its end."""
    step = job.step
    if isinstance(said, Ended):
        if build.interrupts.count:
            _note_ended(build, [step.id])
            return
        message = crash(said.code, job.log)
        _failed_once(build, step, Failed(message, None, EXIT_FAILED, transient=True, unexpected=True))
    elif isinstance(said, Done):
        _finish(build, step, said)
    elif isinstance(said, Failed):
        _failed_once(build, step, said)
    elif isinstance(said, Stopped):
        build.outcomes.stopped[step.id] = said.message
    elif isinstance(said, InputLost):
        _rebuild(build, step.reads[said.role].step, step.id, said.what)
    elif isinstance(said, RemoteLost):
        # Others may meet the same trouble at the same time; it is told once.
        if build.remote is not None:
            build.remote = None
            build.request.listener(said)
    else:
        build.request.listener(said)


def _finish(build: _Build, step: Step, done: Done) -> None:
    records = build.outcomes.records
    if done.fresh:
        # Its process has just read what it published.
        build.request.store.trust(done.record.output)
    try:
        build.request.finished(step, done.record)
    except DamagedTreeError as error:
        # What a model has from its home may be damaged, too.
        others = (other for other, record in records.items() if record.output == error.digest)
        made_by = step.id if done.record.output == error.digest else next(others, step.id)
        _rebuild(build, made_by, None if made_by == step.id else step.id, error.message)
        return
    except ColbuildError as error:
        _fail(build, step, _refused(error))
        return
    records[step.id] = done.record
    if done.fresh:
        build.outcomes.ran.add(step.id)
    build.waiting.done(step.id)


def _failed_once(build: _Build, step: Step, failed: Failed) -> None:
    """A step failed: once more, or for good."""
    attempts, retries = build.queue.failed(step.id), build.request.options.retries
    if failed.transient and attempts <= retries and not build.interrupts.count:
        build.request.listener(Notice(f"{step.id}: {failed.message}; trying again ({attempts} of {retries})"))
        build.queue.put(step.id, build.queue.demands[step.id])
        return
    _fail(build, step, failed)


def _refused(error: ColbuildError) -> Failed:
    """A failure outside the step's own process, which another run of the step would only repeat."""
    return Failed(error.message, error.hint, error.exit_code, transient=False)


def _fail(build: _Build, step: Step, failed: Failed) -> None:
    build.outcomes.failed[step.id] = failed
    build.request.listener(StepFailed(step.id, failed.message))


def _rebuild(build: _Build, made_by: str, reader: str | None, what: str) -> None:
    """A step's result is gone or damaged: it runs again, and then what was about to read it."""
    if build.queue.rebuild(made_by, reader):
        build.request.listener(Notice(f"{what}; building it again"))
        return
    hint = "the disk may be failing: see 'colbuild cache verify', or move the store with --store"
    failed = Failed(f"{what}, again and again", hint, EXIT_FAILED, transient=False)
    _fail(build, build.waiting.step(reader or made_by), failed)


def _heed_interrupts(build: _Build) -> None:
    """The first interrupt asks every step to stop at its next boundary; the second ends them."""
    if build.interrupts.count and (asked := build.running.ask_to_stop()):
        named = ", ".join(asked)
        build.request.listener(Notice(f"stopping {named} at the next boundary; press Ctrl-C again to end at once"))


def _note_ended(build: _Build, steps: list[str]) -> None:
    build.outcomes.stopped.update(dict.fromkeys(steps, "ended at once"))
