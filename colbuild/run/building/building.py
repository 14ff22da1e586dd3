"""Carrying a plan out, and bringing a family's lock up to date."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from shlex import quote
from typing import Any, Final

from colbuild.errors import BuildError
from colbuild.events import BuildFinished, BuildStarted, Listener, Notice, RemoteLost
from colbuild.fetch.contents import Sources
from colbuild.plan.changes.states import StepPlan
from colbuild.plan.cost.estimate import peak_memory
from colbuild.plan.cost.machine_resources import machine
from colbuild.plan.drawing.step import Step
from colbuild.plan.family_plan import FamilyPlan, Workspace, silent
from colbuild.plan.lock.lock import LockMode, LockState
from colbuild.plan.lock.lock_file import Lock, LockedSource, lock_error, write_lock
from colbuild.plan.lock.locked_chain import lock_of
from colbuild.plan.lock.named_sources import source_uris
from colbuild.plan.planning import (
    ansnet_config,
    bridge_vocabulary,
    check_possible,
    held_lock,
    make_plan,
    plan_sources,
    solved_chain,
    steps_of,
)
from colbuild.plan.remembered import packed_tokenizer
from colbuild.plan.shapes.chain import Chain
from colbuild.run.building.family_rows import Row
from colbuild.run.building.landing import outputs_of, place_outputs
from colbuild.run.building.room import check_disk, memory_warnings
from colbuild.run.building.views import family_status, rows_of
from colbuild.run.executor import Options, execute
from colbuild.spec import LoadedFamily
from colbuild.spec.text.problems import in_line
from colbuild.store import ActionRecord, Store
from colbuild.store.collecting.roots import note_root
from colbuild.store.durable_files import NotWritableError

DEFAULTS = Options()
_NOTE_EVERY: Final = 600.0
"""Seconds between two notes of what a running build needs; a result is leased for much longer."""


@dataclass(frozen=True)
class Built:
    """What a build left.

    Attributes:
        rows: One line for each model of the family.
        ran: Ids of the steps that ran.
        seconds: How long it took.
        left: Steps that are not in the store, since no target needed them.
    """

    rows: tuple[Row, ...]
    ran: tuple[str, ...]
    seconds: float
    left: tuple[StepPlan, ...] = ()


@dataclass(frozen=True)
class Relocked:
    """What locking a family did.

    Attributes:
        before: How the lock stood.
        lock: What it holds now.
        written: Whether that changed the file.
    """

    before: LockState
    lock: Lock
    written: bool


def lock_family(loaded: LoadedFamily, workspace: Workspace, listener: Listener = silent) -> Relocked:
    """Brings a family's lock up to date; fetches the sources whose content is not known yet.

    Raises:
        SpecError: A size or shape cannot be, or a newer colbuild wrote the lock.
        SourceUnavailableError: A source cannot be had.
        BuildError: The AnsNet's architecture is not supported, or the disk refuses.
    """
    check_possible(make_plan(loaded, workspace, listener))
    state, sources = held_lock(loaded, workspace.store, LockMode.REFRESH)
    config = ansnet_config(loaded, workspace.store, sources, state, listener)
    vocabulary = bridge_vocabulary(loaded, workspace.store, sources, state, listener)
    tokenizer = packed_tokenizer(loaded.family, workspace.store, sources, state, listener)
    chain = solved_chain(loaded, config, state, vocabulary, tokenizer)
    lock = _locked_now(loaded, workspace.store, sources, config, chain, listener)
    return Relocked(state, lock, write_lock(state.path, lock))


def _locked_now(
    loaded: LoadedFamily,
    store: Store,
    sources: Sources,
    config: Mapping[str, Any],
    chain: Chain,
    listener: Listener,
) -> Lock:
    """A family's lock as it should be; what a source holds is found out by fetching it, if need be."""
    from colbuild.fetch.schemes import origin

    contents = {}
    for uri in source_uris(loaded.family):
        digest = sources.digest(uri)
        if digest is None:
            store.prepare()
            digest = sources.fetch(uri, listener).digest
        pin = sources.locked.get(uri)
        kept = pin.origin if pin is not None and pin.digest == digest else {}
        contents[uri] = LockedSource(digest, kept or origin(uri, downloads=store.downloads))
    return lock_of(loaded.family, config, chain, contents)


def _refreshed(plan: FamilyPlan, workspace: Workspace, listener: Listener) -> FamilyPlan:
    """A plan whose lock is up to date, unless it is to be used as it is.

    Raises:
        SpecError: The lock cannot be read: what it pinned is not to be lost unseen.
    """
    state = plan.lock
    if state.mode is not LockMode.REFRESH or state.up_to_date:
        return plan
    if state.problem is not None:
        raise lock_error(state.problem)
    sources = plan_sources(plan, workspace)
    config = ansnet_config(plan.loaded, workspace.store, sources, state, listener)
    lock = _locked_now(plan.loaded, workspace.store, sources, config, plan.chain, listener)
    try:
        write_lock(state.path, lock)
    except BuildError as error:
        # Whoever may not write beside the spec can build all the same.
        listener(Notice(f"the lock is not written: {error.message}"))
        return plan
    listener(Notice(f"wrote {state.name}"))
    return replace(plan, lock=replace(state, lock=lock, differences=(), pins=True))


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
    plan = _refreshed(plan, workspace, listener)
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
    root = _Root(plan, store)

    def finished(step: Step, record: ActionRecord) -> None:
        place_outputs(outputs, store, step, record, root.records, listener)
        root.add(step, record)

    if plan.pending:
        # What its sources were fetched into must not be collected before they are read.
        root.note()
    try:
        done = execute(
            plan.graph,
            family,
            store,
            plan_sources(plan, workspace),
            listener,
            finished,
            logs=logs,
            memory=peak_memory(plan.graph, plan.chain) if plan.pending else {},
            options=options,
        )
    except BaseException:
        root.note()
        raise
    root.note(whole=True)
    seconds = time.monotonic() - started
    listener(BuildFinished(len(done.ran), len(plan.graph.steps) - len(done.ran), seconds))
    if plan.selection is None:
        return Built(rows_of(plan, workspace, done.records), done.ran, seconds)
    # What no target needed may stand in the store all the same, or be there now that its inputs are known.
    steps = steps_of(plan.loaded, plan.selection.whole, store, plan_sources(plan, workspace))
    now = FamilyPlan(plan.loaded, plan.chain, plan.selection.whole, steps, plan.lock)
    return Built(family_status(now, workspace), done.ran, seconds, now.pending)


@dataclass(eq=False)
class _Root:
    """What the collector must keep for this lock, noted while a long build runs and at its end."""

    plan: FamilyPlan
    store: Store
    records: dict[str, ActionRecord] = field(default_factory=dict)
    noted_at: float = field(default_factory=time.monotonic)

    def add(self, step: Step, record: ActionRecord) -> None:
        self.records[step.id] = record
        if time.monotonic() - self.noted_at > _NOTE_EVERY:
            self.note()

    def note(self, *, whole: bool = False) -> None:
        """Notes what is there; `whole` says that the build is done, and what older ones needed can go."""
        self.noted_at = time.monotonic()
        graph = self.plan.selection.whole if self.plan.selection else self.plan.graph
        # A store that may only be read is its owner's to collect; what could not be noted is leased for a day.
        with suppress(BuildError):
            note_root(
                self.store,
                lock=self.plan.lock.path,
                spec=self.plan.loaded.path,
                family=self.plan.loaded.family.name,
                records=self.records,
                sources=source_uris(self.plan.loaded.family),
                steps=[step.id for step in graph.steps] if whole else None,
                project=self.plan.loaded.root,
            )
