"""Questions about a plan: its cost, differences from a revision, validity of a saved plan, reasons of a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from colbuild.errors import SpecError
from colbuild.events import Listener
from colbuild.plan.checks.text_amounts import text_bytes
from colbuild.plan.cost.estimate import Estimates, estimate
from colbuild.plan.cost.machine import machine_speed
from colbuild.plan.cost.machine_resources import machine
from colbuild.plan.cost.makespan import makespan
from colbuild.plan.drawing.build_graph import BuildGraph, build_graph
from colbuild.plan.drawing.parts import Parts
from colbuild.plan.drawing.target import find_step
from colbuild.plan.family_plan import FamilyPlan, Workspace, silent
from colbuild.plan.lock.locked_sources import sources_of
from colbuild.plan.lock.named_sources import source_uris
from colbuild.plan.operation import WEIGHTS
from colbuild.plan.planning import export_versions, plan_sources, unbuilt
from colbuild.plan.remembered import ansnet_config, bridge_vocabulary
from colbuild.plan.shapes.chain import resolve_chain
from colbuild.plan.shapes.context_lengths import with_contexts
from colbuild.run.building.ansnet_forms import planned_alternatives
from colbuild.run.building.capacity import disk_warnings, memory_warnings
from colbuild.spec import LoadedFamily
from colbuild.spec.sources.grammar import parse_source
from colbuild.spec.text.problems import in_line

if TYPE_CHECKING:
    from colbuild.plan.changes.many import Together
    from colbuild.plan.changes.since import Since
    from colbuild.plan.changes.why import Explanation
    from colbuild.plan.saved.plan_file import SavedPlan


def plan_since(plan: FamilyPlan, workspace: Workspace, revision: str, listener: Listener = silent) -> Since:
    """Returns the steps of a plan that a git revision of the spec, recipes and profiles did not have.

    The lock has no say in it: both are solved by this colbuild, for the AnsNet, and the bridge's tokenizer, as they are now.

    Raises:
        GitError: There is no git repository, or no such revision.
        SpecError: The spec was not there then, or had mistakes.
        SourceError: The tokenizer that its bridge named then cannot be read.
    """
    # Each question imports its own part: `colbuild plan` asks the estimate alone.
    from colbuild.plan.changes.since import compare
    from colbuild.spec.project.revision import changed_since, find_revision, load_at

    loaded = plan.loaded
    found = find_revision(loaded.root, revision)
    before = load_at(loaded, found)
    try:
        old = _graph_of(before, plan, workspace, listener)
    except SpecError as error:
        raise SpecError(f"the spec of {found} cannot be planned: {error.message}", hint=error.hint) from None
    now = _graph_of(loaded, plan, workspace, listener)
    local = {uri: path for uri in source_uris(loaded.family) if (path := parse_source(uri).local_path) is not None}
    changed = changed_since(loaded.root, found, list(local.values()))
    return compare(
        old,
        now,
        plan.steps,
        revision=str(found),
        root=loaded.root,
        places=loaded.places,
        changed_sources=[uri for uri, path in local.items() if path in changed],
    )


def _graph_of(loaded: LoadedFamily, plan: FamilyPlan, workspace: Workspace, listener: Listener) -> BuildGraph:
    """The steps of a spec of the plan's family, solved anew."""
    store, lock = workspace.store, plan.lock
    vocabulary = bridge_vocabulary(loaded, store, sources_of(loaded, store, lock), lock, listener)
    config = ansnet_config(plan.loaded, store, plan_sources(plan, workspace), lock, listener)
    loaded = replace(loaded, family=with_contexts(loaded.family, config))
    chain = resolve_chain(loaded, plan.chain.ansnet.structure, tokenizer=plan.chain.tokenizer, vocabulary=vocabulary)
    return build_graph(loaded.family, chain, export_versions())


def plans_together(plans: Sequence[FamilyPlan], workspaces: Sequence[Workspace]) -> Together:
    """Returns the total of several plans, with shared steps counted once."""
    from colbuild.plan.changes.many import together

    return together(
        [
            (plan.loaded.family.name, workspace.store.root, plan.loaded.root, plan.graph, plan.steps)
            for plan, workspace in zip(plans, workspaces, strict=True)
        ]
    )


def estimate_plan(plan: FamilyPlan, workspace: Workspace) -> Estimates:
    """Estimates the cost of a plan, from recorded runs in the store, else from this machine's speed.

    That is measured once, which takes a fifth of a second, and remembered in the user's cache folder.
    """
    whole = plan.selection.whole if plan.selection else plan.graph
    resources = machine()

    def together(seconds: Mapping[str, float], memory: Mapping[str, int]) -> tuple[float, int]:
        return makespan(plan.graph, seconds, memory, resources)

    parts = Parts(workspace.store)
    estimates = estimate(
        plan.graph,
        plan.steps,
        plan.chain,
        workspace.store.records,
        machine_speed,
        together,
        whole,
        text_bytes(plan.texts),
        lambda result: parts.digest(result, WEIGHTS),
    )
    memory = {step: found.memory for step, found in estimates.steps.items()}
    warnings = (*memory_warnings(plan, memory, resources.memory), *disk_warnings(plan, workspace))
    return replace(estimates, warnings=warnings, instead=planned_alternatives(plan, workspace))


def save_plan(plan: FamilyPlan, workspace: Workspace, estimates: Estimates | None = None) -> SavedPlan:
    """A plan as a value that can be written to a file, and be checked later; see `colbuild.plan.saved.plan_file`."""
    from colbuild.plan.saved.plan_file import saved_plan

    told = estimates or estimate_plan(plan, workspace)
    saved = saved_plan(
        plan.loaded,
        plan.chain,
        plan.graph,
        plan.steps,
        told,
        targets=plan.selection.targets if plan.selection else (),
        source_digest=plan_sources(plan, workspace).digest,
    )
    return saved.model_copy(update={"warnings": (*saved.warnings, *map(in_line, (*plan.warnings, *told.warnings)))})


def check_plan(saved: SavedPlan, plan: FamilyPlan, workspace: Workspace) -> None:
    """Makes sure that a plan does what a saved one says.

    Raises:
        StalePlanError: The spec, a source, colbuild, a library or the store changed since; it says what.
    """
    from colbuild.plan.saved.stale import require_current

    require_current(saved, save_plan(plan, workspace), plan.loaded.places)


def explain_step(plan: FamilyPlan, workspace: Workspace, name: str) -> Explanation:
    """Explains one step of a family, given by its id or by its product.

    Raises:
        UnknownNameError: The family has no such step, or several.
    """
    from colbuild.plan.changes.why import explain

    return explain(
        find_step(plan.graph, name, unbuilt(plan.chain, plan.graph)).id,
        plan.graph,
        plan.steps,
        family=plan.loaded.family.name,
        store=workspace.store,
        places=plan.loaded.places,
        source_digest=plan_sources(plan, workspace).digest,
    )
