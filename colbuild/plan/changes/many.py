"""Plans several families together: steps that do the same are built once, because the families share a store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from colbuild.plan.changes.states import State, StepPlan
from colbuild.plan.changes.step_signature import signatures
from colbuild.plan.drawing.build_graph import BuildGraph


@dataclass(frozen=True)
class Shared:
    """A step that several families have.

    Attributes:
        steps: Family -> the step's id there, in the order of the families.
        state: What will happen to it.
    """

    steps: Mapping[str, str]
    state: State


@dataclass(frozen=True)
class Together:
    """The total of several plans.

    Attributes:
        families: Their names.
        states: State -> how many different steps there are of it.
        shared: The steps that more than one family has.
    """

    families: tuple[str, ...]
    states: Mapping[State, int]
    shared: tuple[Shared, ...]

    @property
    def steps(self) -> int:
        """The number of different steps."""
        return sum(self.states.values())

    @property
    def pending(self) -> int:
        """The number of steps that are not in the store."""
        return self.steps - self.states.get(State.CACHED, 0)


def together(plans: Sequence[tuple[str, Path, Path, BuildGraph, Sequence[StepPlan]]]) -> Together:
    """Counts the steps of several plans, those that do the same in the same store once.

    Args:
        plans: Of each family its name, its store's root, its project's root, its steps and their states.
    """
    found: dict[tuple[Path, str], dict[str, str]] = {}
    states: dict[tuple[Path, str], State] = {}
    for family, store, root, graph, steps in plans:
        told = signatures(graph, root)
        for plan in steps:
            same = (store, told[plan.step.id])
            found.setdefault(same, {}).setdefault(family, plan.step.id)
            states.setdefault(same, plan.state)
    shared = tuple(Shared(names, states[same]) for same, names in found.items() if len(names) > 1)
    return Together(tuple(family for family, *_ in plans), Counter(states.values()), shared)
