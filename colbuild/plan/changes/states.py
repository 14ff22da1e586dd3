"""What each step is going to do, and why: cached, new, changed, or only if something before it comes out different."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from colbuild.plan.changes.former import translated
from colbuild.plan.changes.shown import shown
from colbuild.plan.drawing.build_graph import BuildGraph, sources
from colbuild.plan.drawing.keys import action_key
from colbuild.plan.drawing.parts import CONFIG, WEIGHTS, WORDS, Parts
from colbuild.plan.drawing.step import Read, Step
from colbuild.plan.shapes.members import ANSNET
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
        if key is not None:
            state, why = _reason(step, last, known, graph, places)
            planned[step.id] = StepPlan(step, state, why, key, None, seconds)
            continue
        unknown = [role for role in inputs if role not in known]
        if last is not None and not _difference(step, last, known) and store.lookup(last.key) is not None:
            why = _condition(step, unknown)
            planned[step.id] = StepPlan(step, State.CONDITIONAL, why, None, None, seconds)
            continue
        state, why = _reason(step, last, known, graph, places)
        planned[step.id] = StepPlan(step, state, why, None, None, seconds)
    return tuple(planned.values())


def _reason(
    step: Step, last: ActionRecord | None, known: Mapping[str, str], graph: BuildGraph, places: Places
) -> tuple[State, str]:
    """Why a step that is not in the store has to run."""
    origins = graph.origins[step.id]
    if last is None:
        place = places.nearest(origins[""])
        return State.NEW, f"new  {place}" if place else "new"
    described = differences(step, last, known, origins, places)
    if not described:
        return State.CHANGED, "its result is no longer in the store"
    more = f" and {len(described) - 2} more" if len(described) > 2 else ""
    return State.CHANGED, "; ".join(described[:2]) + more


def differences(
    step: Step,
    last: ActionRecord,
    known: Mapping[str, str],
    origins: Mapping[str, tuple[str | int, ...]],
    places: Places,
) -> tuple[str, ...]:
    """Everything that is known to differ from a step's last run: first parameters, each with its place, then inputs.

    Args:
        step: The step.
        last: Its last run.
        known: Role -> digest of the inputs whose content is known.
        origins: Where its parameters were asked for, see `BuildGraph`.
        places: Where each value of the spec was written.
    """
    changes = _difference(step, last, known)
    read = [change.path[1] for change in changes if change.path[0] == "input"]
    told = [_describe(change, step, origins, places) for change in changes if change.path[0] != "input"]
    # A model that is compared with itself is two inputs.
    return (*told, *(f"{name} changed" for name in _names(step, read)))


def described_changes(
    step: Step, before: Mapping[str, Any], origins: Mapping[str, tuple[str | int, ...]], places: Places
) -> tuple[str, ...]:
    """Every parameter of a step that differs from what it was, each with its place; for the arguments see `differences`."""
    return tuple(_describe(change, step, origins, places) for change in _walk((), before, step.params))


@dataclass(frozen=True)
class Change:
    """A field of a step's parameters or inputs that differs from its last run."""

    path: tuple[str, ...]
    before: Any
    after: Any


def _difference(step: Step, last: ActionRecord, known: Mapping[str, str]) -> list[Change]:
    """What differs from the last run, as far as it is known."""
    changes = list(_walk((), last.params, step.params))
    roles = {*step.reads, *step.sources}
    changes += [
        Change(("input", role), last.inputs.get(role), known.get(role))
        for role in sorted(roles | last.inputs.keys())
        if (role in known and known[role] != last.inputs.get(role)) or role not in roles or role not in last.inputs
    ]
    if not changes and last.key != action_key(step.op, step.params, last.inputs):
        changes.append(Change(("colbuild",), "another version of this step", "this one"))
    return changes


def _walk(path: tuple[str, ...], before: Any, after: Any) -> Sequence[Change]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        return [
            change
            for key in sorted(before.keys() | after.keys())
            for change in _walk((*path, key), before.get(key), after.get(key))
        ]
    # Parameters come from JSON on one side and from Python on the other: a tuple equals a list.
    same = (
        list(before) == list(after)
        if isinstance(before, list | tuple) and isinstance(after, list | tuple)
        else before == after
    )
    return [] if same else [Change(path, before, after)]


def _describe(change: Change, step: Step, origins: Mapping[str, tuple[str | int, ...]], places: Places) -> str:
    if change.path[0] == "colbuild":
        return "this version of colbuild builds it differently"
    head, *rest = change.path
    named = ".".join(rest) if head in ("recipe", "profile") and rest else ".".join(change.path)
    origin = origins.get(head)
    place = places.nearest((*origin, *rest)) if origin else None
    return f"{named} {shown(change.before)} -> {shown(change.after)}" + (f"  {place}" if place else "")


def _condition(step: Step, unknown: Sequence[str]) -> str:
    return f"only if {' or '.join(_names(step, unknown))} changes"


def _names(step: Step, inputs: Sequence[str]) -> list[str]:
    """What some inputs of a step are, in a reader's words: "a60", "the AnsNet's chat template"; each once."""
    reads = {role: Read(needed, None) for role, needed in step.inputs.items()} | step.reads
    found: dict[str, list[str]] = {}
    for name in inputs:
        read = reads.get(name)
        made = planned_name(read.step) if read is not None else step.sources.get(name, f"its {name}")
        words = found.setdefault(made, [])
        if read is None or read.part in (None, WEIGHTS):
            words.append("")
        elif (word := WORDS[read.part or CONFIG]) not in words:
            words.append(word)
    # Where the model itself is another, its tokenizer goes without saying.
    return [made if "" in words else f"{made}'s {' or '.join(words)}" for made, words in found.items()]


def planned_name(step_id: str) -> str:
    """What a step makes, in a reader's words: "distill a60" makes "a60"; "teach a60 for x" makes "a60's lessons for x"."""
    op, _, name = step_id.partition(" ")
    if op == "teach":
        teacher, *reader = name.split(" ", 1)
        return " ".join([f"{'the AnsNet' if teacher == ANSNET else teacher}'s lessons", *reader])
    if name != ANSNET and op in ("source", "align"):
        return f"{name}'s checkpoint" if op == "source" else f"{name}'s start"
    if op == "order":
        return f"the ordered {'AnsNet' if name == ANSNET else name}"
    made = {
        "corpus": "the corpus",
        "source": "the AnsNet",
        "tokenizer": "the tokenizer",
        "bridge": "the bridge",
        "generate": "the generated text",
    }
    return made.get(op, name)
