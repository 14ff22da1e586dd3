"""Lists the steps that a family did not have at an earlier revision of its spec, and why.

::

    spec of then ──> steps ──┐
                             ├── by signature ──> as before · changed (fields) · new · conditional · no longer made
    spec of now  ──> steps ──┘

Both are planned by this colbuild for the same AnsNet, so that only what people wrote can differ.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from colbuild.plan.changes.differ import differences
from colbuild.plan.changes.shown import where
from colbuild.plan.changes.states import State, StepPlan, changed_params, result_of
from colbuild.plan.changes.step_signature import signatures
from colbuild.plan.drawing.build_graph import BuildGraph
from colbuild.plan.drawing.step import Step
from colbuild.spec import Places


@dataclass(frozen=True)
class Rebuild:
    """A step that is not as it was.

    Attributes:
        step: The step as it is now.
        state: NEW, CHANGED or CONDITIONAL, compared with then.
        reasons: Each difference of its parameters and inputs, with its place; for a conditional one what it waits for.
        built: Whether its result is in the store already.
    """

    step: Step
    state: State
    reasons: tuple[str, ...]
    built: bool


@dataclass(frozen=True)
class Since:
    """A family compared with an earlier revision of its spec.

    Attributes:
        revision: What it is compared with, as people call it.
        rebuilt: The steps that are not as they were, in the order of the plan.
        same: How many steps are as they were.
        gone: Ids of the steps of then whose results the family no longer uses.
    """

    revision: str
    rebuilt: tuple[Rebuild, ...]
    same: int
    gone: tuple[str, ...]

    @property
    def pending(self) -> tuple[Rebuild, ...]:
        """The rebuilt steps that are not in the store."""
        return tuple(step for step in self.rebuilt if not step.built)


def compare(
    before: BuildGraph,
    now: BuildGraph,
    plans: Sequence[StepPlan],
    *,
    revision: str,
    root: Path,
    places: Places,
    changed_sources: Collection[str],
) -> Since:
    """Compares the steps of a family with those it had.

    Args:
        before: The steps of then.
        now: The steps of now.
        plans: Those of them that are asked for, with their states.
        revision: What then is called.
        root: The project's root.
        places: Where each value of the spec of now was written.
        changed_sources: URIs whose content is known to differ from then.
    """
    old = signatures(before, root)
    new = signatures(now, root, dict.fromkeys(changed_sources, "changed"))
    known = set(old.values())
    moved = {step for step, signature in new.items() if signature not in known}
    rebuilt = []
    for plan in plans:
        step = plan.step
        if step.id not in moved:
            continue
        state, reasons = _reasons(before, step, moved, now, places, changed_sources)
        rebuilt.append(Rebuild(step, state, reasons, plan.state is State.CACHED))
    needed = set(new.values())
    gone = tuple(step for step, signature in old.items() if signature not in needed and step not in new)
    return Since(revision, tuple(rebuilt), len(plans) - len(rebuilt), gone)


def _reasons(
    before: BuildGraph,
    step: Step,
    moved: Collection[str],
    now: BuildGraph,
    places: Places,
    changed_sources: Collection[str],
) -> tuple[State, tuple[str, ...]]:
    old = before.by_id.get(step.id)
    if old is None:
        return State.NEW, (f"new{where(places, now.origins[step.id][''])}",)
    own = (
        *changed_params(step, old.params, now, places),
        *(
            f"{change.path[0]} {_made(change.before, before)} -> {_made(change.after, now)}"
            for change in differences(old.inputs, step.inputs)
        ),
        *_sources(old, step, changed_sources),
    )
    if own:
        return State.CHANGED, own
    above = dict.fromkeys(result_of(now.by_id[needed]) for needed in step.needs if needed in moved)
    return State.CONDITIONAL, (f"only if {' or '.join(above)} changes",)


def _made(step_id: str | None, graph: BuildGraph) -> str:
    return "none" if step_id is None else result_of(graph.by_id[step_id])


def _sources(old: Step, step: Step, changed: Collection[str]) -> Iterator[str]:
    for role, uri in step.sources.items():
        before = old.sources.get(role)
        if before != uri:
            yield f"source {before} -> {uri}"
        elif uri in changed:
            yield f"the content of {uri} changed"
