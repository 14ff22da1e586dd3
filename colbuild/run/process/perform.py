"""Brings one step's result into the store: found there, fetched from a remote, or run.

::

    digests of its inputs -> key -> [lock] -> in the store?   yes: cached
                                              in the remote cache?  yes: fetched
                                              no: run into a draft -> publish -> record
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from colbuild.errors import ColbuildError, SourceUnavailableError, StoppedError
from colbuild.events import Listener, Notice, RemoteLost, StepCached, StepFinished, StepProgress, StepStarted
from colbuild.ops.step_run import CHECKPOINT_EVERY, StepRun
from colbuild.plan.changes.foresight import remember
from colbuild.plan.drawing.keys import action_key, record_key
from colbuild.plan.drawing.parts import Parts
from colbuild.plan.drawing.step import Step, part_named
from colbuild.plan.steps.operations import OPERATIONS
from colbuild.progress import Progress, Report
from colbuild.run.process.circumstances import MADE_WITH, circumstances
from colbuild.run.process.failures import explain
from colbuild.run.process.input_views import shown
from colbuild.run.process.job import Done, Job, as_step
from colbuild.store import ActionRecord, Store
from colbuild.store.layout import Layout
from colbuild.store.remote.remote_push import push
from colbuild.store.remote.remote_store import RejectedError, RemoteError, fetch, open_remote


class LostInputError(ColbuildError):
    """An input in the store is damaged or gone; `role` is its name in `Step.reads`."""

    def __init__(self, role: str, message: str) -> None:
        super().__init__(message)
        self.role = role


def perform(job: Job, listener: Listener, stopping: Callable[[], bool]) -> Done:
    """Brings the result of a job's step into the store; no other process works on the same key meanwhile.

    Raises:
        StoppedError: The step stopped at a boundary, as `stopping` asked it to.
        LostInputError: An input has to be built again first.
        ColbuildError: The step failed.
    """
    # The build has checked that it is a store.
    step, store = job.step, Store(Layout(job.store))
    inputs = _read(step, job.inputs, Parts(store))
    for role, uri in step.sources.items():
        inputs[role] = job.sources.digest(uri) or job.sources.fetch(uri, listener, stopping).digest
    key = action_key(step.op, step.params, inputs)

    def report(progress: Progress) -> None:
        listener(StepProgress(step.id, progress))

    def waiting() -> None:
        listener(Notice(f"{step.id}: waiting for another build that makes it"))

    def check() -> None:
        if stopping():
            raise StoppedError("stopped before it started")

    def fetching(progress: Progress) -> None:
        report(progress)
        check()

    with store.hold(key, waiting, check):
        hit = store.claim(key)
        if hit is not None:
            store.note_step(job.family, as_step(hit, step))
            listener(StepCached(step.id, "in the store"))
            return Done(hit, fresh=False)
        damaged = store.set_aside_damaged(key)
        if damaged:
            listener(Notice(f"{step.id}: its result in the store was damaged ({damaged}); building it again"))
        fetched = _fetched(job, key, store, listener, fetching)
        if fetched is not None:
            return Done(fetched, fresh=False)
        listener(StepStarted(step.id, job.index, job.total))
        record = _run(job, key, inputs, store, listener, report, stopping)
        last = store.last(job.family, step.id)
        store.record(job.family, record)
        store.forget_partial(key)
        _push(job, record, store, listener, report)
        same = last is not None and last.output == record.output
        listener(StepFinished(step.id, record.seconds, record.size, same, record.ledger))
        return Done(record, fresh=True)


def _read(step: Step, results: Mapping[str, str], parts: Parts) -> dict[str, str]:
    """What the step's key says of what other steps made. Raises LostInputError if a result's list of files is lost."""
    found = {}
    for name, result in results.items():
        digest = parts.digest(result, part_named(name))
        if digest is None:
            raise LostInputError(name, f"{step.reads[name].step}: its result in the store is damaged")
        found[name] = digest
    return found


def _fetched(job: Job, key: str, store: Store, listener: Listener, report: Report) -> ActionRecord | None:
    """The result from the remote cache, if there is one and it has it; trouble with it is told, and fails nothing."""
    if job.remote is None:
        return None
    try:
        record = fetch(open_remote(job.remote), store, key, report, record_key)
    except RejectedError as error:
        listener(Notice(f"{job.step.id}: {error.message}; building it here"))
        return None
    except RemoteError as error:
        listener(RemoteLost(error.message))
        return None
    if record is not None:
        store.note_step(job.family, as_step(record, job.step))
        listener(StepCached(job.step.id, "in the remote cache"))
    return record


def _push(job: Job, record: ActionRecord, store: Store, listener: Listener, report: Report) -> None:
    """Puts a new result into the remote cache, if that is asked for."""
    if job.remote is None or not job.push:
        return
    try:
        pushed = push(open_remote(job.remote), store, [record], report)
    except RemoteError as error:
        listener(RemoteLost(error.message))
        return
    if pushed.differing:
        listener(Notice(f"{job.step.id}: the remote cache keeps another result of the same action"))


def _run(
    job: Job,
    key: str,
    inputs: Mapping[str, str],
    store: Store,
    listener: Listener,
    report: Report,
    stopping: Callable[[], bool],
) -> ActionRecord:
    step = job.step
    operation = OPERATIONS[step.op]
    _check_inputs(step, job.inputs, store)
    paths: dict[str, Path] = {}
    for role, uri in step.sources.items():
        fetched = job.sources.fetch(uri, listener, stopping)
        _unchanged(uri, inputs[role], fetched.digest)
        paths[role] = fetched.path
    started = time.monotonic()
    noted: dict[str, Any] = {MADE_WITH: circumstances(job.threads)}

    def remark(text: str) -> None:
        noted.setdefault("remarks", []).append(text)
        listener(Notice(f"{step.id}: {text}"))

    with store.draft() as draft, shown(job.inputs, store) as views:
        paths |= views
        output = draft / "files"
        partial = store.partial(key)
        resumed = partial.exists() and any(partial.iterdir())
        run = StepRun(
            paths,
            output,
            report,
            partial,
            checkpoint_every=float(step.settings.get("checkpoint_every", CHECKPOINT_EVERY)),
            stopping=stopping,
            settings=step.settings,
            metrics=job.metrics,
            compiled=store.layout.folder("compiled"),
            note=noted.update,
            remark=remark,
        )
        try:
            with ExitStack() as reading:
                for uri in step.sources.values():
                    reading.enter_context(job.sources.reading(uri))
                operation.carry_out(run, step.params)
        except BrokenPipeError:
            raise
        except Exception as error:
            raise explain(error, output, job.log, trains=operation.follows_recipe) from error
        finally:
            # Models form reference cycles; without this what runs next here starts beside this step's memory.
            gc.collect()
        for role, uri in step.sources.items():
            # A file of the user's may be edited while it is read; what came of that must not be found again.
            _unchanged(uri, inputs[role], job.sources.fetch(uri, listener).digest)
        tree = store.publish(draft)
    remember(step, job.sources, store, tree.digest)
    return ActionRecord(
        key=key,
        step=step.id,
        op=step.op,
        params=step.params,
        inputs=inputs,
        output=tree.digest,
        size=tree.size,
        seconds=round(time.monotonic() - started, 3),
        built_at=round(time.time(), 3),
        resumed=resumed,
        ledger=noted,
    )


def _check_inputs(step: Step, inputs: Mapping[str, str], store: Store) -> None:
    """Raises LostInputError if what the step reads is not what was built; it is set aside then."""
    for name, digest in inputs.items():
        found = store.check_content(digest) if OPERATIONS[step.op].verified_inputs else store.check(digest)
        if found is not None:
            raise LostInputError(name, f"{step.reads[name].step}: its result in the store is damaged ({found})")


def _unchanged(uri: str, before: str, now: str) -> None:
    """Raises SourceUnavailableError if a source is no longer what the step's key says."""
    if before != now:
        raise SourceUnavailableError(
            f"{uri} changed while it was being read", hint="build again when the file no longer changes"
        )
