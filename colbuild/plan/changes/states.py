"""The state of each step, and the reason: cached, new, changed, or conditional on an earlier step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from colbuild.plan.changes.differ import Change, differences
from colbuild.plan.changes.former import translated
from colbuild.plan.changes.shown import from_to, in_short, where
from colbuild.plan.drawing.build_graph import BuildGraph, sources
from colbuild.plan.drawing.draft import FamilyPath
from colbuild.plan.drawing.keys import action_key
from colbuild.plan.drawing.parts import WORDS, Parts
from colbuild.plan.drawing.step import Read, Step
from colbuild.plan.operation import CONFIG, WEIGHTS
from colbuild.plan.steps.operations import OPERATIONS
from colbuild.spec import Places
from colbuild.store import ActionRecord, Store


class State(Enum):
    """A step's state, by the sign it is printed with."""

    CACHED = "="
    NEW = "+"
    CHANGED = "~"
    CONDITIONAL = "?"


@dataclass(frozen=True)
class StepPlan:
    """One line of the plan.

    Attributes:
        step: The step.
        state: What will happen to it.
        why: The reason, with file and line where a person's change is the reason.
        key: Its action key; None while an input's content is not known yet.
        output: Digest of its result, when it is in the store.
        seconds: How long its last run took on this machine; None if it never ran here.
    """

    step: Step
    state: State
    why: str
    key: str | None
    output: str | None
    seconds: float | None


Foresight = Callable[[Step], Mapping[str, str]]
"""Tells, of a source step that has to run, part -> digest of each part of its result that is known beforehand."""


def nothing_foreseen(_: Step) -> Mapping[str, str]:
    """For plans that know a result only once it is there."""
    return {}


def plan_steps(
    graph: BuildGraph,
    *,
    family: str,
    store: Store,
    places: Places,
    source_digest: Callable[[str], str | None],
    foreseen: Foresight = nothing_foreseen,
) -> tuple[StepPlan, ...]:
    """Decides the state of every step.

    Args:
        graph: The steps, in topological order.
        family: Its name; the store remembers each family's last build by it.
        store: Where results are looked up.
        places: Where each value of the spec was written, for the reasons.
        source_digest: URI -> digest of its content, None when that is not known without fetching it.
        foreseen: Tells the digests of parts that a source step is going to make again as they are.
    """
    planned: dict[str, StepPlan] = {}
    ahead: dict[str, Mapping[str, str]] = {}
    digests = {uri: source_digest(uri) for uri in sources(graph)}
    parts = Parts(store)
    for step in graph.steps:
        inputs = parts.inputs(step, lambda needed: planned[needed].output)
        for name, read in step.reads.items():
            if inputs[name] is None and read.part is not None and read.step in ahead:
                inputs[name] = ahead[read.step].get(read.part)
        inputs |= {role: digests[uri] for role, uri in step.sources.items()}
        known = {role: digest for role, digest in inputs.items() if digest is not None}
        key = action_key(step.op, step.params, known) if len(known) == len(inputs) else None
        hit = store.lookup(key) if key is not None else None
        if hit is not None:
            planned[step.id] = StepPlan(step, State.CACHED, "in the store", key, hit.output, hit.seconds or None)
            continue
        last = store.last(family, step.id)
        last = last and (translated(last, parts) or last)
        if step.op == "source":
            ahead[step.id] = foreseen(step)
        seconds = (last.seconds or None) if last else None
        told = () if last is None else since_last_run(step, last, known, graph, places)
        unknown = [role for role in inputs if role not in known]
        if last is None:
            state, why = State.NEW, f"new{where(places, graph.origins[step.id][''])}"
        elif told:
            state, why = State.CHANGED, in_short(told)
        elif unknown and store.lookup(last.key) is not None:
            state, why = State.CONDITIONAL, f"only if {' or '.join(_names(step, unknown, graph))} changes"
        else:
            state, why = State.CHANGED, "its result is no longer in the store"
        planned[step.id] = StepPlan(step, state, why, key, None, seconds)
    return tuple(planned.values())


def since_last_run(
    step: Step, last: ActionRecord, known: Mapping[str, str], graph: BuildGraph, places: Places
) -> tuple[str, ...]:
    """Everything that is known to differ from a step's last run: first parameters, each with its place, then inputs.

    Args:
        step: The step.
        last: Its last run.
        known: Role -> digest of the inputs whose content is known.
        graph: All steps of the family.
        places: Where each value of the spec was written.
    """
    told = changed_params(step, last.params, graph, places)
    # A model that is compared with itself is two inputs.
    told += tuple(f"{name} changed" for name in _names(step, _changed_inputs(step, last, known), graph))
    same_version = last.key == action_key(step.op, step.params, last.inputs)
    return told if told or same_version else ("this version of colbuild builds it differently",)


def changed_params(step: Step, before: Mapping[str, Any], graph: BuildGraph, places: Places) -> tuple[str, ...]:
    """Every parameter of a step that differs from what it was, each with its place; see `since_last_run`."""
    return tuple(_describe(change, graph.origins[step.id], places) for change in differences(before, step.params))


def _changed_inputs(step: Step, last: ActionRecord, known: Mapping[str, str]) -> list[str]:
    """Roles whose content is known to differ, sorted; one that is not known yet counts as it was, if it was there."""
    now = {role: known.get(role) or last.inputs.get(role, "unknown") for role in (*step.reads, *step.sources)}
    return [role for change in differences(last.inputs, now) for role in change.path]


def _describe(change: Change, origins: Mapping[str, FamilyPath], places: Places) -> str:
    head, *rest = change.path
    named = ".".join(rest) if head in ("recipe", "profile") and rest else ".".join(change.path)
    origin = origins.get(head)
    return f"{named} {from_to(change)}" + (where(places, (*origin, *change.at[1:])) if origin else "")


def _names(step: Step, inputs: Sequence[str], graph: BuildGraph) -> list[str]:
    """What some inputs of a step are, in a reader's words: "a60", "the AnsNet's chat template"; each once."""
    reads = {role: Read(needed, None) for role, needed in step.inputs.items()} | step.reads
    found: dict[str, list[str]] = {}
    for name in inputs:
        read = reads.get(name)
        made = step.sources.get(name, f"its {name}") if read is None else result_of(graph.by_id[read.step])
        words = found.setdefault(made, [])
        if read is None or read.part in (None, WEIGHTS):
            words.append("")
        elif (word := WORDS[read.part or CONFIG]) not in words:
            words.append(word)
    # Where the model itself is another, its tokenizer goes without saying.
    return [made if "" in words else f"{made}'s {' or '.join(words)}" for made, words in found.items()]


def result_of(step: Step) -> str:
    """The result of a step, in a reader's words: "distill a100" makes "a100"; "teach a60 for x" makes "a60's lessons for x"."""
    return OPERATIONS[step.op].title(step.name)
