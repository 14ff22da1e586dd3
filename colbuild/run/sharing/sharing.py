"""Pushes a family's results to a remote, and pulls them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from colbuild.errors import SourceUnavailableError
from colbuild.fetch.contents import Sources
from colbuild.plan.changes.states import State
from colbuild.plan.drawing.keys import action_key, record_key
from colbuild.plan.drawing.parts import Parts
from colbuild.plan.drawing.step import Step
from colbuild.plan.family_plan import FamilyPlan, Workspace
from colbuild.plan.planning import plan_sources
from colbuild.progress import Progress, Report
from colbuild.run.process.job import as_step
from colbuild.store import ActionRecord, Store
from colbuild.store.remote.remote_push import push
from colbuild.store.remote.remote_store import Pushed, RejectedError, Remote, check, fetch, open_remote


@dataclass(frozen=True)
class Pulled:
    """The result of a pull.

    Attributes:
        objects: How many results came.
        bytes: How much that was.
        skipped: How many results were here already.
        missing: Steps whose result the remote does not have, or which cannot be asked for without another's.
        rejected: What was offered and is not what it should be, one line each; their steps are among the missing.
    """

    objects: int = 0
    bytes: int = 0
    skipped: int = 0
    missing: tuple[str, ...] = ()
    rejected: tuple[str, ...] = ()


def push_family(plan: FamilyPlan, workspace: Workspace, url: str, report: Report) -> Pushed:
    """Puts all results of a plan that are in the store into a remote.

    Raises:
        BuildError: The URL cannot be used, or the remote cannot be written to.
    """
    keys = [step.key for step in plan.steps if step.state is State.CACHED and step.key is not None]
    records = [record for key in keys if (record := workspace.store.claim(key)) is not None]
    return push(open_remote(url), workspace.store, records, report)


def pull_family(plan: FamilyPlan, workspace: Workspace, url: str, report: Report) -> Pulled:
    """Brings the results of a plan into the store, as far as a remote has them.

    A step is known by what the steps before it made, so where one is missing, so is everything after it.

    Raises:
        BuildError: The URL cannot be used, the remote does not answer or stops in the middle, or the disk refuses.
    """
    remote, store = open_remote(url), workspace.store
    check(remote)
    store.prepare()
    sources = plan_sources(plan, workspace)
    pulled = Pulled()
    outputs: dict[str, str] = {}
    parts = Parts(store)
    for step in plan.graph.steps:
        inputs = _inputs(step, outputs, sources, parts)
        if inputs is None:
            pulled = replace(pulled, missing=(*pulled.missing, step.id))
            continue

        def counted(progress: Progress, before: int = pulled.bytes) -> None:
            report(replace(progress, done=before + progress.done, total=before + progress.total))

        key = action_key(step.op, step.params, inputs)
        record, pulled = _pull(remote, store, step, key, pulled, counted)
        if record is not None:
            store.note_step(plan.loaded.family.name, as_step(record, step))
            outputs[step.id] = record.output
    return pulled


def _inputs(step: Step, outputs: Mapping[str, str], sources: Sources, parts: Parts) -> dict[str, str] | None:
    """What a step reads, as its key names it: name -> digest; None if something of it is not known."""
    inputs: dict[str, str] = {}
    for name, read in parts.inputs(step, outputs.get).items():
        if read is None:
            return None
        inputs[name] = read
    for role, uri in step.sources.items():
        try:
            digest = sources.digest(uri)
        except SourceUnavailableError:
            return None
        if digest is None:
            return None
        inputs[role] = digest
    return inputs


def _pull(
    remote: Remote, store: Store, step: Step, key: str, pulled: Pulled, report: Report
) -> tuple[ActionRecord | None, Pulled]:
    with store.hold(key, lambda: None):
        record = store.claim(key)
        if record is not None:
            return record, replace(pulled, skipped=pulled.skipped + 1)
        store.set_aside_damaged(key)
        try:
            record = fetch(remote, store, key, report, record_key)
        except RejectedError as error:
            rejected = (*pulled.rejected, f"{step.id}: {error.message}")
            return None, replace(pulled, missing=(*pulled.missing, step.id), rejected=rejected)
    if record is None:
        return None, replace(pulled, missing=(*pulled.missing, step.id))
    return record, replace(pulled, objects=pulled.objects + 1, bytes=pulled.bytes + record.size)
