"""From a loaded family to its plan."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from colbuild.arch import read_structure
from colbuild.events import Listener
from colbuild.fetch.contents import Sources
from colbuild.plan.changes.foresight import foresee
from colbuild.plan.changes.states import StepPlan, plan_steps
from colbuild.plan.checks.beginnings import check_beginning
from colbuild.plan.checks.readable_texts import check_texts
from colbuild.plan.checks.start_checkpoints import check_starts
from colbuild.plan.checks.text_amounts import known_texts, text_problems
from colbuild.plan.drawing.build_graph import BuildGraph, build_graph
from colbuild.plan.drawing.target import parse_target, restrict, select
from colbuild.plan.family_plan import FamilyPlan, Selection, Workspace, silent
from colbuild.plan.lock.lock import LockMode, LockState, compare, open_lock
from colbuild.plan.lock.locked_chain import pinned_chain
from colbuild.plan.lock.locked_sources import sources_of
from colbuild.plan.lock.named_sources import source_uris
from colbuild.plan.remembered import ansnet_config, bridge_vocabulary, packed_tokenizer
from colbuild.plan.shapes.chain import Chain, resolve_chain
from colbuild.plan.shapes.context_lengths import position_problems, with_contexts
from colbuild.plan.steps.corpus import META
from colbuild.spec import LoadedFamily, spec_error
from colbuild.spec.project.plausible import unlikely
from colbuild.store import Store
from colbuild.store.durable_files import read_json

_EXPORT_LIBRARIES = ("torch", "onnx", "onnx-ir", "onnxruntime", "onnxscript", "mobius-onnx")


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
        targets: What to plan, as `colbuild.plan.drawing.target` reads it; everything if there is none.
        lock: What the family's lock is taken for.

    Raises:
        UnknownNameError: A target is no part of the family.
        SpecError: A size or shape cannot be, or the lock is not what it is taken for.
        SourceUnavailableError: A source is unavailable, or is not what a frozen lock pins.
        SourceError: The AnsNet's architecture is not supported, or another source's content is not what the spec says.
    """
    state, sources = held_lock(loaded, workspace.store, lock)
    config = ansnet_config(loaded, workspace.store, sources, state, listener)
    vocabulary = bridge_vocabulary(loaded, workspace.store, sources, state, listener)
    tokenizer = packed_tokenizer(loaded.family, workspace.store, sources, state, listener)
    chain = solved_chain(loaded, config, state, vocabulary, tokenizer)
    check_starts(loaded, chain, sources, listener)
    graph = build_graph(with_contexts(loaded.family, config), chain, export_versions())
    steps = steps_of(loaded, graph, workspace.store, sources)
    store = workspace.store
    texts = known_texts(steps, loaded, sources.text_size, lambda digest: read_json(store.files(digest) / META))
    selection, planned, whole = None, steps, graph
    if targets:
        chosen = select(graph, [parse_target(target) for target in targets], unbuilt(chain, graph))
        selection = Selection(tuple(targets), graph, tuple(plan for plan in steps if plan.step.id not in chosen))
        graph, planned = restrict(graph, chosen), tuple(plan for plan in steps if plan.step.id in chosen)
    check_texts(planned, sources)
    check_beginning(loaded, planned, sources)
    impossible, warnings = text_problems(whole, planned, texts, loaded)
    warnings += unlikely(loaded.family, loaded.places)
    return FamilyPlan(loaded, chain, graph, planned, state, selection, texts, tuple(impossible), tuple(warnings))


def check_possible(*plans: FamilyPlan) -> None:
    """Refuses plans that are known to fail.

    Raises:
        SpecError: With every reason, each at its place.
    """
    problems = [problem for plan in plans for problem in plan.impossible]
    if problems:
        raise spec_error(problems)


def held_lock(loaded: LoadedFamily, store: Store, mode: LockMode) -> tuple[LockState, Sources]:
    """A family's lock, compared with what there is, and the sources as it pins them.

    Raises:
        SourceUnavailableError: With every source that should be on this machine and is not.
        SpecError: The lock is not what it is taken for.
    """
    state = open_lock(loaded, mode)
    sources = sources_of(loaded, store, state)
    if mode is LockMode.FROZEN:
        for uri in source_uris(loaded.family):
            sources.check(uri)
    sources.find_all()
    return compare(state, loaded, sources.digest), sources


def plan_sources(plan: FamilyPlan, workspace: Workspace) -> Sources:
    """The sources of a plan's family, as its lock pins them."""
    return sources_of(plan.loaded, workspace.store, plan.lock)


def solved_chain(
    loaded: LoadedFamily,
    config: Mapping[str, Any],
    state: LockState,
    vocabulary: int | None = None,
    tokenizer: int | None = None,
) -> Chain:
    """The family's chain: the lock's as far as that holds.

    Args:
        loaded: The family.
        config: The AnsNet's config.json.
        state: Its lock.
        vocabulary: Ids of the tokenizer that the bridge names, if it names one.
        tokenizer: Bytes of the tokenizer in a package, if they are known and decide a size.

    Raises:
        SpecError: A size, a shape or a length cannot be.
    """
    structure = read_structure(config)
    problems = position_problems(loaded, config)
    if problems:
        raise spec_error(problems)
    loaded = replace(loaded, family=with_contexts(loaded.family, config))
    if state.pins:
        return pinned_chain(loaded, structure, state, vocabulary)
    return resolve_chain(loaded, structure, tokenizer=tokenizer, vocabulary=vocabulary)


def steps_of(loaded: LoadedFamily, graph: BuildGraph, store: Store, sources: Sources) -> tuple[StepPlan, ...]:
    """Returns the plan of each step of a graph."""
    return plan_steps(
        graph,
        family=loaded.family.name,
        store=store,
        places=loaded.places,
        source_digest=sources.digest,
        foreseen=lambda step: foresee(step, sources, store),
    )


def unbuilt(chain: Chain, graph: BuildGraph) -> list[str]:
    """The anchors that no step makes."""
    return [anchor.name for anchor in chain.anchors if anchor.name not in graph.models]


def export_versions() -> dict[str, str]:
    """Exact versions of what an exported graph depends on, without importing it."""
    return {name: importlib.metadata.version(name) for name in _EXPORT_LIBRARIES}
