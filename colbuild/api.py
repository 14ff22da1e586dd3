"""What the command line calls and notebooks import: a family's plan, its build, and how it stands.

>>> loaded = load_family(Path("specs/family.yaml"))
>>> workspace = open_workspace(loaded)
>>> build(make_plan(loaded, workspace), workspace).rows
"""

from __future__ import annotations

import importlib.metadata
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colbuild.arch import Structure, read_structure
from colbuild.plan.chain import Chain, resolve_chain
from colbuild.plan.graph import BuildGraph, build_graph
from colbuild.plan.states import State, StepPlan, plan_steps
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
class FamilyPlan:
    """A family with its shapes, its steps and what each is going to do."""

    loaded: LoadedFamily
    chain: Chain
    graph: BuildGraph
    steps: tuple[StepPlan, ...]

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
    """

    rows: tuple[Row, ...]
    ran: tuple[str, ...]
    seconds: float


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


def make_plan(loaded: LoadedFamily, workspace: Workspace, listener: Listener = silent) -> FamilyPlan:
    """Plans a family: solves shapes, draws the steps and decides what each is going to do.

    Nothing is built. The AnsNet is fetched if its shape is not known yet, since every other shape follows from it.

    Raises:
        SpecError: A size or shape cannot be.
        SourceUnavailableError: The AnsNet cannot be had.
        BuildError: The AnsNet's architecture is not supported.
    """
    sources = sources_of(loaded, workspace.store)
    chain = resolve_chain(loaded, _structure(loaded, workspace.store, sources, listener))
    graph = build_graph(loaded.family, chain, _versions())
    steps = plan_steps(
        graph,
        family=loaded.family.name,
        store=workspace.store,
        places=loaded.places,
        source_digest=sources.digest,
    )
    return FamilyPlan(loaded, chain, graph, steps)


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
    return Built(_rows(plan, workspace, done.records), done.ran, seconds)


def family_status(plan: FamilyPlan, workspace: Workspace) -> tuple[Row, ...]:
    """One line for each model: what is known of it and lies in the store now."""
    records = {step.step.id: workspace.store.lookup(step.key) for step in plan.steps if step.key is not None}
    return _rows(plan, workspace, {step: record for step, record in records.items() if record is not None})


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
    return family_rows(plan.chain, plan.graph, found, workspace.out / plan.loaded.family.name)


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
