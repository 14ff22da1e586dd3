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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colbuild.arch import Structure, read_structure
from colbuild.plan.chain import Chain, resolve_chain
from colbuild.plan.graph import BuildGraph, build_graph
from colbuild.plan.states import State, StepPlan, plan_steps
from colbuild.plan.target import find_step, parse_target, restrict, select
from colbuild.plan.why import Explanation, explain
from colbuild.report.table import Row, family_rows
from colbuild.run.events import BuildFinished, BuildStarted, Event, Listener, Notice
from colbuild.run.executor import execute
from colbuild.run.outputs import outputs_of, place_outputs
from colbuild.run.record import recorded
from colbuild.run.sources import Sources, sources_of
from colbuild.spec import LoadedFamily, load_family
from colbuild.spec.schema import schema_text
from colbuild.spec.sources import HubSource, PyPISource, parse_source
from colbuild.store import ActionRecord, Store, open_store

if TYPE_CHECKING:
    from colbuild.export.runtime import Generation

__all__ = [
    "Built",
    "FamilyPlan",
    "Workspace",
    "answer",
    "build",
    "explain_step",
    "family_shapes",
    "family_status",
    "load_family",
    "make_plan",
    "open_workspace",
    "schema_text",
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
        selection: What was asked for, if that is not everything.
    """

    loaded: LoadedFamily
    chain: Chain
    graph: BuildGraph
    steps: tuple[StepPlan, ...]
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
    loaded: LoadedFamily, workspace: Workspace, listener: Listener = silent, targets: Sequence[str] = ()
) -> FamilyPlan:
    """Plans a family: solves shapes, draws the steps and decides what each is going to do.

    Nothing is built. The AnsNet is fetched if its shape is not known yet, since every other shape follows from it.

    Args:
        loaded: The family.
        workspace: Where it is built.
        listener: Told what happens.
        targets: What to plan, as `colbuild.plan.target` reads it; everything if there is none.

    Raises:
        UnknownNameError: A target is no part of the family.
        SpecError: A size or shape cannot be.
        SourceUnavailableError: The AnsNet cannot be had.
        BuildError: The AnsNet's architecture is not supported.
    """
    sources = sources_of(loaded, workspace.store)
    chain = resolve_chain(loaded, _structure(loaded, workspace.store, sources, listener))
    graph = build_graph(loaded.family, chain, _versions())
    steps = _plan_steps(loaded, graph, workspace.store)
    if not targets:
        return FamilyPlan(loaded, chain, graph, steps)
    chosen = select(graph, [parse_target(target) for target in targets], _unbuilt(chain, graph))
    left = tuple(plan for plan in steps if plan.step.id not in chosen)
    return FamilyPlan(
        loaded,
        chain,
        restrict(graph, chosen),
        tuple(plan for plan in steps if plan.step.id in chosen),
        Selection(tuple(targets), graph, left),
    )


def _plan_steps(loaded: LoadedFamily, graph: BuildGraph, store: Store) -> tuple[StepPlan, ...]:
    return plan_steps(
        graph,
        family=loaded.family.name,
        store=store,
        places=loaded.places,
        source_digest=sources_of(loaded, store).digest,
    )


def _unbuilt(chain: Chain, graph: BuildGraph) -> list[str]:
    """The anchors that no step makes."""
    return [anchor.name for anchor in chain.anchors if anchor.name not in graph.models]


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
        source_digest=sources_of(plan.loaded, workspace.store).digest,
    )


def build(plan: FamilyPlan, workspace: Workspace, listener: Listener = silent) -> Built:
    """Builds what a plan says, and puts models and packages into `out/`.

    Raises:
        ColbuildError: A step failed. Everything finished before it is kept, and the next build goes on from there.
    """
    store = workspace.store
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
        sources_of(plan.loaded, store),
        listener,
        lambda step, record: place_outputs(outputs, plan.graph, store, step, record, listener),
    )
    seconds = time.monotonic() - started
    listener(BuildFinished(len(done.ran), len(plan.graph.steps) - len(done.ran), seconds))
    if plan.selection is None:
        return Built(_rows(plan, workspace, done.records), done.ran, seconds)
    # What no target needed may stand in the store all the same, or be there now that its inputs are known.
    now = FamilyPlan(
        plan.loaded, plan.chain, plan.selection.whole, _plan_steps(plan.loaded, plan.selection.whole, store)
    )
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


def _structure(loaded: LoadedFamily, store: Store, sources: Sources, listener: Listener) -> Structure:
    """The AnsNet's structure, from memory where its content is known, else from its files.

    What lies on this machine is read anew each time, which is quick, so that a plan writes nothing.
    """
    uri = loaded.family.ansnet.source
    digest = sources.digest(uri)
    config: Any = store.remembered("config", digest) if digest else None
    if not isinstance(config, dict):
        from colbuild.ops.source import read_config

        remote = isinstance(parse_source(uri), PyPISource | HubSource)
        if remote:
            listener(Notice(f"fetching the AnsNet, whose shape everything else follows from: {uri}"))
            store.prepare()
        fetched = sources.fetch(uri, listener)
        config = read_config(fetched.path)
        structure = read_structure(config)
        if remote:
            store.remember("config", fetched.digest, config)
        return structure
    return read_structure(config)


def _versions() -> dict[str, str]:
    """Exact versions of what an exported graph depends on, without importing it."""
    return {name: importlib.metadata.version(name) for name in _EXPORT_LIBRARIES}
