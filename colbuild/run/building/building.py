"""Carries a plan out: its steps, the outputs in `out/`, and the record of the build."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote

from colbuild.events import BuildFinished, BuildStarted, Listener, Notice, RemoteLost
from colbuild.plan.changes.states import StepPlan
from colbuild.plan.cost.estimate import peak_memory
from colbuild.plan.cost.machine_resources import machine
from colbuild.plan.drawing.step import Step
from colbuild.plan.family_plan import FamilyPlan, Workspace, silent
from colbuild.plan.planning import (
    check_possible,
    plan_sources,
    steps_of,
)
from colbuild.plan.shapes.rounded_ansnet import Alternatives
from colbuild.run.build_request import BuildRequest, Options
from colbuild.run.building.ansnet_forms import built_alternatives, planned_alternatives
from colbuild.run.building.capacity import check_disk, memory_warnings
from colbuild.run.building.family_lock import refreshed
from colbuild.run.building.family_rows import Row, family_status, rows_of
from colbuild.run.building.kept_results import KeptResults
from colbuild.run.building.landing import outputs_of, place_outputs
from colbuild.run.executor import execute
from colbuild.spec.text.problems import in_line
from colbuild.store import ActionRecord, Store
from colbuild.store.durable_files import NotWritableError

DEFAULTS = Options()


@dataclass(frozen=True)
class Built:
    """The result of a build.

    Attributes:
        rows: One line for each model of the family.
        ran: Ids of the steps that ran.
        seconds: How long it took.
        left: Steps that are not in the store, since no target needed them.
        instead: The AnsNet in fewer bits, beside the family's packages.
    """

    rows: tuple[Row, ...]
    ran: tuple[str, ...]
    seconds: float
    instead: Alternatives
    left: tuple[StepPlan, ...] = ()


def build(plan: FamilyPlan, workspace: Workspace, listener: Listener = silent, options: Options = DEFAULTS) -> Built:
    """Builds what a plan says, and puts models and packages into `out/`. The lock is written if it is not up to date.

    Args:
        plan: What to build.
        workspace: Where.
        listener: Told what happens.
        options: How many steps run side by side, with what, and what happens when one fails.

    Raises:
        SpecError: It is known that the plan fails.
        BuildError: The disk has no room for it.
        StoppedError: Somebody stopped it. Everything finished is kept, and what long steps go on from.
        ColbuildError: A step failed. Everything finished before it is kept, and the next build goes on from there.
    """
    check_possible(plan)
    for warning in plan.warnings:
        listener(Notice(f"warning: {in_line(warning)}"))
    store = workspace.store
    plan = refreshed(plan, workspace, listener)
    if not plan.pending:
        # Nothing will be written, so that a finished family can be shown from a store that is read-only.
        return _build(plan, workspace, listener, options, store.layout.folder("logs"))
    check_disk(plan, workspace)
    memory = peak_memory(plan.graph, plan.chain)
    for warning in memory_warnings(plan, memory, (options.resources or machine()).memory):
        listener(Notice(f"warning: {in_line(warning)}"))
    options = _with_remote(options, listener)
    from colbuild.run.history.build_record import recorded

    with ExitStack() as stack:
        with _not_writable(plan, store):
            store.prepare()
            recording = stack.enter_context(recorded(listener, store.layout.folder("runs")))
        return _build(plan, workspace, recording, options, store.layout.folder("logs") / recording.id)


@contextmanager
def _not_writable(plan: FamilyPlan, store: Store) -> Iterator[None]:
    """Says which steps a store would have to take that may only be read, and how to build them all the same."""
    try:
        yield
    except NotWritableError as error:
        steps = [pending.step.id for pending in plan.pending]
        named = ", ".join(steps[:3]) + (f" and {len(steps) - 3} more" if steps[3:] else "")
        count = "one step is" if len(steps) == 1 else f"{len(steps)} steps are"
        raise NotWritableError(
            f"{error.message}; {count} not in the store yet: {named}",
            hint="build in a store of your own, and read this one as a remote cache: "
            f"--store DIR --remote {quote(f'file://{store.root.resolve()}')}",
        ) from error


def _with_remote(options: Options, listener: Listener) -> Options:
    """Asks the remote cache once whether it is there: each step would wait for one that does not answer.

    Raises:
        BuildError: Its URL cannot be used.
    """
    if options.remote is None:
        return options
    from colbuild.store.remote.remote_store import RemoteError, check, open_remote

    try:
        check(open_remote(options.remote))
    except RemoteError as error:
        listener(RemoteLost(error.message))
        return replace(options, remote=None)
    return options


def _build(plan: FamilyPlan, workspace: Workspace, listener: Listener, options: Options, logs: Path) -> Built:
    started = time.monotonic()
    family, store = plan.loaded.family.name, workspace.store
    listener(
        BuildStarted(
            family, tuple(step.id for step in plan.graph.steps), len(plan.pending), str(plan.loaded.path.resolve())
        )
    )
    outputs = outputs_of(plan.graph, workspace.out, family)
    kept = KeptResults(plan, store)

    def finished(step: Step, record: ActionRecord) -> None:
        place_outputs(outputs, store, step, record, kept.records, listener)
        kept.add(step, record)

    if plan.pending:
        # What its sources were fetched into must not be collected before they are read.
        kept.note()
    try:
        memory = peak_memory(plan.graph, plan.chain) if plan.pending else {}
        sources = plan_sources(plan, workspace)
        done = execute(BuildRequest(plan.graph, family, store, sources, listener, finished, logs, memory, options))
    except BaseException:
        kept.note()
        raise
    kept.note(whole=True)
    seconds = time.monotonic() - started
    listener(BuildFinished(len(done.ran), len(plan.graph.steps) - len(done.ran), seconds))
    if plan.selection is None:
        instead = built_alternatives(plan, workspace, done.records)
        return Built(rows_of(plan, workspace, done.records), done.ran, seconds, instead)
    # What no target needed may stand in the store all the same, or be there now that its inputs are known.
    steps = steps_of(plan.loaded, plan.selection.whole, store, plan_sources(plan, workspace))
    now = FamilyPlan(plan.loaded, plan.chain, plan.selection.whole, steps, plan.lock)
    return Built(family_status(now, workspace), done.ran, seconds, planned_alternatives(now, workspace), now.pending)
