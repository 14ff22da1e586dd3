"""The remaining steps of a build: those that wait for inputs, and those that wait for resources."""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from colbuild.plan.cost.machine_resources import Demand, Resources, first_fitting
from colbuild.plan.cost.waiting import Waiting
from colbuild.plan.drawing.step import Step

_REBUILDS: Final = 2
"""How often a step's lost inputs are built again before it counts as failed."""


@dataclass(frozen=True, eq=False)
class StepQueue:
    """Steps that are not done.

    Attributes:
        waiting: What they wait for.
        demands: Step id -> what it takes while it runs, of all that were ever put here.
    """

    waiting: Waiting
    demands: dict[str, Demand] = field(default_factory=dict)
    _queue: list[str] = field(default_factory=list)
    _attempts: dict[str, int] = field(default_factory=dict)
    _rebuilds: dict[str, int] = field(default_factory=dict)

    def put(self, step: str, demand: Demand) -> None:
        """A step is to run: its inputs are there, its result is not."""
        self.demands[step] = demand
        insort(self._queue, step, key=self.waiting.index)

    def take_fitting(self, running: Sequence[str], resources: Resources) -> Step | None:
        """Takes the first step out that fits beside those that run; None if none does."""
        ready = first_fitting(self._queue, self.demands, {step: self.demands[step] for step in running}, resources)
        if ready is None:
            return None
        self._queue.remove(ready)
        return self.waiting.step(ready)

    def failed(self, step: str) -> int:
        """Counts a failure of a step; returns how many there are."""
        self._attempts[step] = self._attempts.get(step, 0) + 1
        return self._attempts[step]

    def rebuild(self, made_by: str, reader: str | None) -> bool:
        """A step's result was lost: it has to run again, and then its reader. False if that happened too often."""
        self._rebuilds[made_by] = self._rebuilds.get(made_by, 0) + 1
        if self._rebuilds[made_by] > _REBUILDS:
            return False
        self.waiting.again(made_by, reader)
        return True
