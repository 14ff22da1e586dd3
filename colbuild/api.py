"""What the command line calls and notebooks import: a family's plan, its build, and how it stands.

>>> loaded = load_family(Path("specs/family.yaml"))
>>> workspace = open_workspace(loaded)
>>> build(make_plan(loaded, workspace), workspace).rows
"""

from __future__ import annotations

import importlib.metadata
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colbuild.arch import read_structure
from colbuild.errors import BuildError, SpecError
from colbuild.plan.chain import Chain, resolve_chain
from colbuild.plan.estimate import Estimates, estimate
from colbuild.plan.graph import BuildGraph, build_graph
from colbuild.plan.lock import LockMode, LockState, compare, lock_of, open_lock, pinned_chain, source_uris
from colbuild.plan.lock_file import Lock, LockedSource, lock_error, write_lock
from colbuild.plan.many import Together, together
from colbuild.plan.saved import SavedPlan, plan_schema_text, read_plan, saved_plan, write_plan
from colbuild.plan.since import Since
from colbuild.plan.since import compare as compare_graphs
from colbuild.plan.stale import require_current
from colbuild.plan.states import State, StepPlan, plan_steps
from colbuild.plan.target import find_step, parse_target, restrict, select
from colbuild.plan.why import Explanation, explain
from colbuild.report.table import Row, family_rows
from colbuild.run.events import BuildFinished, BuildStarted, Event, Listener, Notice
from colbuild.run.executor import execute
from colbuild.run.outputs import outputs_of, place_outputs
from colbuild.run.record import recorded
from colbuild.run.sources import Sources, is_fetched, sources_of
from colbuild.spec import LoadedFamily, load_family
from colbuild.spec.revision import changed_since, find_revision, load_at
from colbuild.spec.schema import schema_text
from colbuild.spec.sources import LocalSource, parse_source
from colbuild.store import ActionRecord, Store, open_store

if TYPE_CHECKING:
    from colbuild.export.runtime import Generation

__all__ = [
    "Built",
    "FamilyPlan",
    "LockMode",
    "Workspace",
    "answer",
    "build",
    "check_plan",
    "estimate_plan",
    "explain_step",
    "family_shapes",
    "family_status",
    "load_families",
    "load_family",
    "lock_family",
    "make_plan",
    "open_workspace",
    "plan_schema_text",
    "plan_since",
    "plans_together",
    "read_plan",
    "save_plan",
    "schema_text",
    "write_plan",
]

STORE_VARIABLE = "COLBUILD_STORE"
_EXPORT_LIBRARIES = ("torch", "onnx", "onnxruntime", "onnxscript", "mobius-onnx")


@dataclass(frozen=True)
class Workspace:
    """Where a family is built.

    Attributes:
        store: What was built.
        out: The folder for packages and checkpoints.
    """

    store: Store
    out: Path


@dataclass(frozen=True)
class Selection:
    """What was asked for of a family, and what was not.

    Attributes:
        targets: As they were asked for: "watch", "+watch", "watch+".
        whole: The graph of the whole family.
        left: The steps that no target needs.
    """

    targets: tuple[str, ...]
    whole: BuildGraph
    left: tuple[StepPlan, ...]


@dataclass(frozen=True)
class FamilyPlan:
    """A family with its shapes, its steps and what each is going to do.

    Attributes:
        loaded: The family.
        chain: Its members, shapes solved.
        graph: The steps of the plan: those of the whole family, or of a selection.
        steps: What each is going to do.
        lock: How the family's lock stands.
        selection: What was asked for, if that is not everything.
    """

    loaded: LoadedFamily
    chain: Chain
    graph: BuildGraph
    steps: tuple[StepPlan, ...]
    lock: LockState
    selection: Selection | None = None

    @property
    def pending(self) -> tuple[StepPlan, ...]:
        """The steps that are not in the store."""
        return tuple(step for step in self.steps if step.state is not State.CACHED)


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


def silent(_: Event) -> None:
    """A listener that hears nothing."""


def open_workspace(loaded: LoadedFamily, store: Path | None = None) -> Workspace:
    """The store and output folder of a family's project.

    Args:
        loaded: The family.
        store: Where the store lies; by default `COLBUILD_STORE`, else `.colbuild` in the project's root.

    Raises:
        BuildError: The store's path holds something else.
    """
    configured = os.environ.get(STORE_VARIABLE)
    root = store or (Path(configured) if configured else loaded.root / ".colbuild")
    return Workspace(open_store(root), loaded.root / "out")


def make_plan(
    loaded: LoadedFamily,
    workspace: Workspace,
    listener: Listener = silent,
    targets: Sequence[str] = (),
    lock: LockMode = LockMode.REFRESH,
) -> FamilyPlan:
    """Plans a family: solves shapes, draws the steps and decides what each is going to do.

    Nothing is built. The AnsNet is fetched if neither the lock nor the store knows its shape, since every other shape
    follows from it.

    Args:
        loaded: The family.
        workspace: Where it is built.
        listener: Told what happens.
        targets: What to plan, as `colbuild.plan.target` reads it; everything if there is none.
        lock: What the family's lock is taken for.

    Raises:
        UnknownNameError: A target is no part of the family.
        SpecError: A size or shape cannot be, or the lock is not what it is taken for.
        SourceUnavailableError: The AnsNet cannot be had, or a source is not what a frozen lock pins.
        BuildError: The AnsNet's architecture is not supported.
    """
    state, sources = _held_lock(loaded, workspace.store, lock)
    config = _config(loaded, workspace.store, sources, state, listener)
    chain = _chain(loaded, config, state)
    graph = build_graph(loaded.family, chain, _versions())
    steps = _plan_steps(loaded, graph, workspace.store, sources)
    if not targets:
        return FamilyPlan(loaded, chain, graph, steps, state)
    chosen = select(graph, [parse_target(target) for target in targets], _unbuilt(chain, graph))
    left = tuple(plan for plan in steps if plan.step.id not in chosen)
    return FamilyPlan(
        loaded,
        chain,
        restrict(graph, chosen),
        tuple(plan for plan in steps if plan.step.id in chosen),
        state,
        Selection(tuple(targets), graph, left),
    )


def _held_lock(loaded: LoadedFamily, store: Store, mode: LockMode) -> tuple[LockState, Sources]:
    """A family's lock, compared with what there is, and the sources as it pins them."""
    state = open_lock(loaded, mode)
    sources = sources_of(loaded, store, state)
    if mode is LockMode.FROZEN:
        for uri in source_uris(loaded.family):
            sources.check(uri)
    return compare(state, loaded, sources.digest), sources


def _sources(plan: FamilyPlan, workspace: Workspace) -> Sources:
    """The sources of a plan's family, as its lock pins them."""
    return sources_of(plan.loaded, workspace.store, plan.lock)


def _chain(loaded: LoadedFamily, config: Mapping[str, Any], state: LockState) -> Chain:
    """The family's chain: the lock's as far as that holds."""
    structure = read_structure(config)
    return pinned_chain(loaded, structure, state) if state.pins else resolve_chain(loaded, structure)


def _plan_steps(loaded: LoadedFamily, graph: BuildGraph, store: Store, sources: Sources) -> tuple[StepPlan, ...]:
    return plan_steps(
        graph,
        family=loaded.family.name,
        store=store,
        places=loaded.places,
        source_digest=sources.digest,
    )


def _unbuilt(chain: Chain, graph: BuildGraph) -> list[str]:
    """The anchors that no step makes."""
    return [anchor.name for anchor in chain.anchors if anchor.name not in graph.models]


def plan_since(plan: FamilyPlan, revision: str) -> Since:
    """What a plan does that the family's spec, recipes and profiles of a git revision did not ask for.

    The lock has no say in it: both are solved by this colbuild, for the AnsNet as it is now.

    Raises:
        RevisionError: There is no git repository, or no such revision.
        SpecError: The spec was not there then, or had mistakes.
    """
    loaded, structure = plan.loaded, plan.chain.ansnet.structure
    found = find_revision(loaded.root, revision)
    before = load_at(loaded, found)
    try:
        old = build_graph(before.family, resolve_chain(before, structure), _versions())
    except SpecError as error:
        raise SpecError(f"the spec of {found} cannot be planned: {error.message}", hint=error.hint) from None
    now = build_graph(loaded.family, resolve_chain(loaded, structure), _versions())
    local = {uri: source for uri in source_uris(loaded.family) if isinstance(source := parse_source(uri), LocalSource)}
    changed = changed_since(loaded.root, found, [source.path for source in local.values()])
    return compare_graphs(
        old,
        now,
        plan.steps,
        revision=str(found),
        root=loaded.root,
        places=loaded.places,
        changed_sources=[uri for uri, source in local.items() if source.path in changed],
    )


def load_families(paths: Sequence[Path]) -> tuple[LoadedFamily, ...]:
    """Reads several families, each file once.

    Raises:
        SpecError: With every mistake in all of them, or two families of one project have one name.
    """
    families, errors = [], []
    for path in dict.fromkeys(path.absolute() for path in paths):
        try:
            families.append(load_family(path))
        except SpecError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise SpecError("\n\n".join(error.message for error in errors))
    named: dict[tuple[Path, str], LoadedFamily] = {}
    for loaded in families:
        other = named.setdefault((loaded.root, loaded.family.name.lower()), loaded)
        if other is not loaded:
            raise SpecError(
                f"{other.path.name} and {loaded.path.name} both describe a family called '{loaded.family.name}'",
                hint=f"give one of them another name: both would be put into out/{loaded.family.name}/",
            )
    return tuple(families)


def plans_together(plans: Sequence[FamilyPlan], workspaces: Sequence[Workspace]) -> Together:
    """What several plans come to, with the steps that they share counted once."""
    return together(
        [
            (plan.loaded.family.name, workspace.store.root, plan.loaded.root, plan.graph, plan.steps)
            for plan, workspace in zip(plans, workspaces, strict=True)
        ]
    )


def estimate_plan(plan: FamilyPlan, workspace: Workspace) -> Estimates:
    """What a plan is going to cost, from the runs that the store remembers."""
    whole = plan.selection.whole if plan.selection else plan.graph
    return estimate(plan.graph, plan.steps, plan.chain, workspace.store.records, whole)


def save_plan(plan: FamilyPlan, workspace: Workspace, estimates: Estimates | None = None) -> SavedPlan:
    """A plan as a value that can be written to a file, and be checked later; see `colbuild.plan.saved`."""
    return saved_plan(
        plan.loaded,
        plan.chain,
        plan.graph,
        plan.steps,
        estimates or estimate_plan(plan, workspace),
        targets=plan.selection.targets if plan.selection else (),
        source_digest=_sources(plan, workspace).digest,
    )


def check_plan(saved: SavedPlan, plan: FamilyPlan, workspace: Workspace) -> None:
    """Makes sure that a plan does what a saved one says.

    Raises:
        StalePlanError: The spec, a source, colbuild, a library or the store changed since; it says what.
    """
    require_current(saved, save_plan(plan, workspace), plan.loaded.places)


def explain_step(plan: FamilyPlan, workspace: Workspace, name: str) -> Explanation:
    """All that is known of one step of a family, given by its id or by what it makes.

    Raises:
        UnknownNameError: The family has no such step, or several.
    """
    return explain(
        find_step(plan.graph, name, _unbuilt(plan.chain, plan.graph)).id,
        plan.graph,
        plan.steps,
        family=plan.loaded.family.name,
        store=workspace.store,
        places=plan.loaded.places,
        source_digest=_sources(plan, workspace).digest,
    )


def lock_family(loaded: LoadedFamily, workspace: Workspace, listener: Listener = silent) -> Relocked:
    """Brings a family's lock up to date; fetches the sources whose content is not known yet.

    Raises:
        SpecError: A size or shape cannot be, or a newer colbuild wrote the lock.
        SourceUnavailableError: A source cannot be had.
        BuildError: The AnsNet's architecture is not supported, or the disk refuses.
    """
    state, sources = _held_lock(loaded, workspace.store, LockMode.REFRESH)
    config = _config(loaded, workspace.store, sources, state, listener)
    lock = _locked_now(loaded, workspace.store, sources, config, _chain(loaded, config, state), listener)
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
    from colbuild.ops.source import origin

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
    sources = _sources(plan, workspace)
    config = _config(plan.loaded, workspace.store, sources, state, listener)
    lock = _locked_now(plan.loaded, workspace.store, sources, config, plan.chain, listener)
    try:
        write_lock(state.path, lock)
    except BuildError as error:
        # Whoever may not write beside the spec can build all the same.
        listener(Notice(f"the lock is not written: {error.message}"))
        return plan
    listener(Notice(f"wrote {state.name}"))
    return replace(plan, lock=replace(state, lock=lock, differences=(), pins=True))


def build(plan: FamilyPlan, workspace: Workspace, listener: Listener = silent) -> Built:
    """Builds what a plan says, and puts models and packages into `out/`. The lock is written if it is not up to date.

    Raises:
        ColbuildError: A step failed. Everything finished before it is kept, and the next build goes on from there.
    """
    store = workspace.store
    plan = _refreshed(plan, workspace, listener)
    if not plan.pending:
        # Nothing will be written, so that a finished family can be shown from a store that is read-only.
        return _build(plan, workspace, listener)
    store.prepare()
    with recorded(listener, store.layout.folder("runs")) as recording:
        return _build(plan, workspace, recording)


def _build(plan: FamilyPlan, workspace: Workspace, listener: Listener) -> Built:
    started = time.monotonic()
    family, store = plan.loaded.family.name, workspace.store
    listener(BuildStarted(family, tuple(step.id for step in plan.graph.steps), len(plan.pending)))
    outputs = outputs_of(plan.graph, workspace.out, family)
    done = execute(
        plan.graph,
        family,
        store,
        _sources(plan, workspace),
        listener,
        lambda step, record: place_outputs(outputs, plan.graph, store, step, record, listener),
    )
    seconds = time.monotonic() - started
    listener(BuildFinished(len(done.ran), len(plan.graph.steps) - len(done.ran), seconds))
    if plan.selection is None:
        return Built(_rows(plan, workspace, done.records), done.ran, seconds)
    # What no target needed may stand in the store all the same, or be there now that its inputs are known.
    steps = _plan_steps(plan.loaded, plan.selection.whole, store, _sources(plan, workspace))
    now = FamilyPlan(plan.loaded, plan.chain, plan.selection.whole, steps, plan.lock)
    return Built(family_status(now, workspace), done.ran, seconds, now.pending)


def family_status(plan: FamilyPlan, workspace: Workspace) -> tuple[Row, ...]:
    """One line for each model: what is known of it and lies in the store now."""
    every = (*plan.steps, *(plan.selection.left if plan.selection else ()))
    records = {step.step.id: workspace.store.lookup(step.key) for step in every if step.key is not None}
    return _rows(plan, workspace, {step: record for step, record in records.items() if record is not None})


def family_shapes(plan: FamilyPlan, workspace: Workspace) -> tuple[Row, ...]:
    """One line for each model: its solved shape, and nothing of what was built."""
    return _rows(plan, workspace, {})


def answer(
    package: Path,
    prompt: str,
    *,
    max_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
    threads: int | None = None,
    chat: bool = True,
) -> Generation:
    """Opens a package and answers a prompt, token by token; see `colbuild.export.runtime`.

    Raises:
        BuildError: It is no package, it is damaged, or the prompt does not fit.
    """
    from colbuild.export.runtime import generate, open_package

    opened = open_package(package, threads)
    return generate(opened, prompt, max_tokens=max_tokens, temperature=temperature, seed=seed, chat=chat)


def _rows(plan: FamilyPlan, workspace: Workspace, records: Mapping[str, ActionRecord]) -> tuple[Row, ...]:
    found = {step: workspace.store.files(record.output) for step, record in records.items()}
    graph = plan.selection.whole if plan.selection else plan.graph
    return family_rows(plan.chain, graph, found, workspace.out / plan.loaded.family.name)


def _config(
    loaded: LoadedFamily, store: Store, sources: Sources, state: LockState, listener: Listener
) -> Mapping[str, Any]:
    """The AnsNet's config.json: from the lock or from memory where its content is known, else from its files.

    What lies on this machine is read anew each time, which is quick, so that a plan writes nothing.
    """
    uri = loaded.family.ansnet.source
    digest = sources.digest(uri)
    if state.lock is not None and state.lock.describes(uri, digest):
        return state.lock.ansnet
    known: Any = store.remembered("config", digest) if digest else None
    if isinstance(known, dict):
        return known
    from colbuild.ops.source import read_config

    if is_fetched(uri):
        listener(Notice(f"fetching the AnsNet, whose shape everything else follows from: {uri}"))
        store.prepare()
    fetched = sources.fetch(uri, listener)
    config = read_config(fetched.path)
    # What is not supported is refused before it is remembered.
    read_structure(config)
    if is_fetched(uri):
        store.remember("config", fetched.digest, config)
    return config


def _versions() -> dict[str, str]:
    """Exact versions of what an exported graph depends on, without importing it."""
    return {name: importlib.metadata.version(name) for name in _EXPORT_LIBRARIES}
