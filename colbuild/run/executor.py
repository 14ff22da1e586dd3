"""The local executor: runs the steps of a graph that are not in the store, one after the other.

For each step, in topological order::

    digests of its inputs -> key -> [lock] -> in the store?  yes: cached
                                                no: run into a draft -> publish -> record

What is published stays, whatever happens to the steps after it.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from colbuild.errors import ColbuildError, SourceUnavailableError
from colbuild.ops.step import StepRun
from colbuild.plan.graph import BuildGraph
from colbuild.plan.keys import action_key
from colbuild.plan.step import Step
from colbuild.progress import Progress
from colbuild.run.environment import prepare_process
from colbuild.run.events import Listener, Notice, StepCached, StepFailed, StepFinished, StepProgress, StepStarted
from colbuild.run.failures import explain
from colbuild.run.operations import operation
from colbuild.run.sources import Sources
from colbuild.store import ActionRecord, Store

OnFinished = Callable[[Step, ActionRecord], None]


@dataclass(frozen=True)
class Executed:
    """What came of a graph.

    Attributes:
        records: Step id -> the record of its result.
        ran: Ids of the steps that ran; the others were in the store.
    """

    records: Mapping[str, ActionRecord]
    ran: tuple[str, ...]


class StepError(ColbuildError):
    """A step failed; says which, and keeps the exit code of the reason."""

    def __init__(self, step: str, reason: ColbuildError) -> None:
        super().__init__(f"{step}: {reason.message}", hint=reason.hint)
        self.exit_code = reason.exit_code  # type: ignore[misc]


def execute(
    graph: BuildGraph, family: str, store: Store, sources: Sources, listener: Listener, finished: OnFinished
) -> Executed:
    """Brings every step's result into the store.

    Args:
        graph: The steps, in topological order.
        family: Its name, under which the store remembers the steps.
        store: Where results are looked up and put.
        sources: Where contents from outside come from.
        listener: Told what happens.
        finished: Called after each step with its record, cached or not.

    Raises:
        StepError: A step failed. Everything finished before it is kept.
    """
    records: dict[str, ActionRecord] = {}
    ran: list[str] = []
    for index, step in enumerate(graph.steps):
        try:
            record, fresh = _bring(step, (index, len(graph.steps)), family, records, store, sources, listener)
            finished(step, record)
        except ColbuildError as error:
            listener(StepFailed(step.id, error.message))
            raise StepError(step.id, error) from error
        records[step.id] = record
        if fresh:
            ran.append(step.id)
    return Executed(records, tuple(ran))


def _bring(
    step: Step,
    place: tuple[int, int],
    family: str,
    records: Mapping[str, ActionRecord],
    store: Store,
    sources: Sources,
    listener: Listener,
) -> tuple[ActionRecord, bool]:
    """A step's record, and whether it had to run."""
    inputs = {role: records[needed].output for role, needed in step.inputs.items()}
    for role, uri in step.sources.items():
        inputs[role] = sources.digest(uri) or sources.fetch(uri, listener).digest
    key = action_key(step.op, step.params, inputs)
    hit = store.lookup(key)
    if hit is None:
        with store.hold(key, lambda: listener(Notice(f"{step.id}: another build is making it; waiting"))):
            hit = store.lookup(key)
            if hit is None:
                damaged = store.set_aside_damaged(key)
                if damaged:
                    listener(Notice(f"{step.id}: its result in the store was damaged ({damaged}); building it again"))
                listener(StepStarted(step.id, *place))
                record = _run(step, key, inputs, store, sources, listener)
                last = store.last(family, step.id)
                store.record(family, record)
                same = last is not None and last.output == record.output
                listener(StepFinished(step.id, record.seconds, record.size, same))
                return record, True
    store.note_step(family, _as_step(hit, step))
    listener(StepCached(step.id, "in the store"))
    return hit, False


def _as_step(record: ActionRecord, step: Step) -> ActionRecord:
    """A record under this step's name: another step, or another family's, may have made the same result."""
    return record if record.step == step.id else replace(record, step=step.id)


def _run(
    step: Step, key: str, inputs: Mapping[str, str], store: Store, sources: Sources, listener: Listener
) -> ActionRecord:
    paths = {role: store.files(digest) for role, digest in inputs.items() if role not in step.sources}
    for role, uri in step.sources.items():
        fetched = sources.fetch(uri, listener)
        _unchanged(uri, inputs[role], fetched.digest)
        paths[role] = fetched.path
    started = time.monotonic()
    prepare_process()

    def report(progress: Progress) -> None:
        listener(StepProgress(step.id, progress))

    with store.draft() as draft:
        output = draft / "files"
        try:
            operation(step.op)(StepRun(paths, step.params, output, report))
        except BrokenPipeError:
            raise
        except Exception as error:
            raise explain(error, step.id, output, store.layout.folder("logs")) from error
        finally:
            # Models form reference cycles; without this the next step starts beside the last one's memory.
            gc.collect()
        for role, uri in step.sources.items():
            # A file of the user's may be edited while it is read; what came of that must not be found again.
            _unchanged(uri, inputs[role], sources.fetch(uri, listener).digest)
        tree = store.publish(draft)
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
    )


def _unchanged(uri: str, before: str, now: str) -> None:
    """Raises SourceUnavailableError if a source is no longer what the step's key says."""
    if before != now:
        raise SourceUnavailableError(f"{uri} changed while it was being read", hint="build again once it is at rest")
