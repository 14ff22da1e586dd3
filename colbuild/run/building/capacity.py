"""Checks that this machine has enough memory and disk for a plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from colbuild.errors import BuildError
from colbuild.plan.checks.text_amounts import text_bytes
from colbuild.plan.cost.estimate import Written, written
from colbuild.plan.family_plan import FamilyPlan, Workspace
from colbuild.plan.steps.operations import OPERATIONS
from colbuild.run.building.landing import outputs_of
from colbuild.spec import Problem
from colbuild.store.space import free_bytes, same_file_system
from colbuild.units import format_bytes

_TRAINING_HINT: Final = (
    "set a smaller micro_batch or sequence, or gradient_checkpointing: always, in the recipe, "
    "or build on a larger machine"
)


@dataclass(frozen=True)
class _Short:
    """A file system with less room than a plan needs.

    Attributes:
        what: What is written there.
        place: Where.
        needed: Bytes that are written.
        free: Bytes that it has.
    """

    what: str
    place: Path
    needed: int
    free: int

    @property
    def message(self) -> str:
        return (
            f"the plan needs about {format_bytes(self.needed)} of disk for {self.what}, and {format_bytes(self.free)} "
            f"are free in {self.place}"
        )

    @property
    def hint(self) -> str:
        return (
            "free some: 'colbuild cache gc' removes results that no lock needs; or choose another disk with --store"
            if self.what == "the store"
            else "free some, or move the project"
        )


def memory_warnings(plan: FamilyPlan, memory: Mapping[str, int], available: int) -> list[Problem]:
    """A warning for each step that is still to run and needs more memory than there is, at the place that asks for it."""
    found = []
    for step in (pending.step for pending in plan.pending):
        needed = memory.get(step.id, 0)
        if needed <= available:
            continue
        places = plan.graph.origins[step.id]
        place = plan.loaded.places.nearest(places.get("recipe", places[""]))
        hint = (
            _TRAINING_HINT
            if OPERATIONS[step.op].follows_recipe
            else "build on a larger machine, or choose a smaller model"
        )
        message = (
            f"'{step.id}' needs about {format_bytes(needed)} of memory, and this machine has {format_bytes(available)}"
        )
        found.append(Problem(place, message, hint))
    return found


def disk_warnings(plan: FamilyPlan, workspace: Workspace) -> list[Problem]:
    """A warning where a plan writes more, at most, than a disk has room for."""
    return [Problem(None, short.message, short.hint) for short in _short(plan, workspace, at_most=True)]


def check_disk(plan: FamilyPlan, workspace: Workspace) -> None:
    """Refuses a build whose results surely have no room.

    Raises:
        BuildError: What is needed, what is free, and what to do.
    """
    for short in _short(plan, workspace, at_most=False):
        raise BuildError(short.message, hint=short.hint)


def _short(plan: FamilyPlan, workspace: Workspace, *, at_most: bool) -> Iterator[_Short]:
    if not plan.pending:
        return
    each = written(plan.graph, plan.chain, plan.steps, text_bytes(plan.texts))
    store, out = workspace.store.root, workspace.out

    def sized(one: Written) -> int:
        return one.most if at_most else one.least

    places = {"the store": (store, sum(map(sized, each.values())))}
    if not same_file_system(store, out):
        # On one file system they are links, or clones, of what is in the store.
        put = outputs_of(plan.graph, out, plan.loaded.family.name).places
        copied = sum(len(put[step]) * sized(one) for step, one in each.items() if step in put)
        places["models and packages"] = (out, copied)
    for what, (place, needed) in places.items():
        free = free_bytes(place)
        if free is not None and needed > free:
            yield _Short(what, place, needed, free)
