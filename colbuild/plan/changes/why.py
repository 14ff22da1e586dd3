"""Explains one step: inputs, parameters, differences from its last run, and the steps that need it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from colbuild.plan.changes.former import translated
from colbuild.plan.changes.states import StepPlan, since_last_run
from colbuild.plan.drawing.build_graph import BuildGraph, digraph
from colbuild.plan.drawing.draft import FamilyPath
from colbuild.plan.drawing.parts import Parts
from colbuild.spec import Places
from colbuild.store import ActionRecord, Store


@dataclass(frozen=True)
class InputUse:
    """An input of a step, with its role.

    Attributes:
        role: "teacher.weights", "corpus", ...
        made_by: Id of the step that makes it, or the URI that it comes from.
        state: The state's sign of that step; None for a source.
        digest: Of its content; None while that is not known.
    """

    role: str
    made_by: str
    state: str | None
    digest: str | None


@dataclass(frozen=True)
class Parameter:
    """A parameter of a step: its dotted name, its value and in words where that comes from."""

    name: str
    value: Any
    origin: str


@dataclass(frozen=True)
class Explanation:
    """All that is known of one step.

    Attributes:
        plan: Its state, the reason and its key.
        inputs: What it reads.
        parameters: What decides its result beside its inputs.
        differences: What differs from its last run; empty when it is in the store or never ran.
        last: Its last run on this store; None if there was none.
        needed_by: Ids of the steps that read its result.
        after_those: Ids of the steps that depend on it through others.
    """

    plan: StepPlan
    inputs: tuple[InputUse, ...]
    parameters: tuple[Parameter, ...]
    differences: tuple[str, ...]
    last: ActionRecord | None
    needed_by: tuple[str, ...]
    after_those: tuple[str, ...]


def explain(
    step_id: str,
    graph: BuildGraph,
    plans: Sequence[StepPlan],
    *,
    family: str,
    store: Store,
    places: Places,
    source_digest: Callable[[str], str | None],
) -> Explanation:
    """Explains one step of a planned family.

    Args:
        step_id: The step.
        graph: All steps of the family.
        plans: What each of them is going to do.
        family: The family's name, by which the store remembers its steps.
        store: Where results are looked up.
        places: Where each value of the spec was written.
        source_digest: URI -> digest of its content, None when that is not known without fetching it.
    """
    by_id = {plan.step.id: plan for plan in plans}
    plan = by_id[step_id]
    step, origins = plan.step, graph.origins[step_id]
    parts = Parts(store)
    digests = parts.inputs(step, lambda needed: by_id[needed].output)
    inputs = tuple(
        InputUse(name, read.step, by_id[read.step].state.value, digests[name]) for name, read in step.reads.items()
    )
    inputs += tuple(InputUse(role, uri, None, source_digest(uri)) for role, uri in step.sources.items())
    cached = store.lookup(plan.key) if plan.key is not None and plan.output is not None else None
    last = cached or store.last(family, step_id)
    last = last and (translated(last, parts) or last)
    differing: tuple[str, ...] = ()
    if last is not None and cached is None:
        known = {use.role: use.digest for use in inputs if use.digest is not None}
        differing = since_last_run(step, last, known, graph, places)
    import networkx

    edges = digraph(graph.steps)
    direct, every = set(edges.successors(step_id)), networkx.descendants(edges, step_id)
    ordered = [other.id for other in graph.steps]
    return Explanation(
        plan=plan,
        inputs=inputs,
        parameters=tuple(_parameters(step.params, origins, places)),
        differences=differing,
        last=last,
        needed_by=tuple(other for other in ordered if other in direct),
        after_those=tuple(other for other in ordered if other in every - direct),
    )


def _parameters(params: Mapping[str, Any], origins: Mapping[str, FamilyPath], places: Places) -> Iterator[Parameter]:
    for head, value in params.items():
        for rest, leaf in _leaves((), value):
            yield Parameter(".".join((head, *rest)), leaf, _origin(head, rest, origins, places))


def _leaves(path: tuple[str, ...], value: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves((*path, key), inner)
    else:
        yield path, value


def _origin(head: str, rest: tuple[str, ...], origins: Mapping[str, FamilyPath], places: Places) -> str:
    """Where a parameter's value comes from: a place, a default, the planner, or what is installed."""
    if head == "versions":
        return "installed"
    origin = origins.get(head)
    if origin is None:
        return "default"
    # A shape's lengths are asked for below the model that has it, a recipe's values below the recipe itself.
    for path in ((*origin, *rest), (*origin, head, *rest)) if rest else (origin,):
        if path in places.known:
            return str(places.known[path])
    if head != "shape":
        return "default"
    for size in ("params", "max_package"):
        if (*origin, size) in places.known:
            return f"solved for {size}  {places.known[*origin, size]}"
    return "the AnsNet's" if (*origin, "shape") in places.known else f"solved  {places.nearest(origin)}"
