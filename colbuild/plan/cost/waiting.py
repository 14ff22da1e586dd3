"""The steps that can run next: those whose inputs exist, in the order of the graph."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from colbuild.plan.drawing.build_graph import BuildGraph
from colbuild.plan.drawing.step import Step


@dataclass(eq=False)
class Waiting:
    """The steps of a graph that are not done, and what they wait for."""

    graph: BuildGraph
    _index: dict[str, int] = field(init=False)
    _missing: dict[str, set[str]] = field(init=False)
    _readers: dict[str, list[str]] = field(init=False)
    _ready: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self._index = {step.id: index for index, step in enumerate(self.graph.steps)}
        self._missing = {step.id: set(step.needs) for step in self.graph.steps}
        self._readers = {step.id: [] for step in self.graph.steps}
        for step in self.graph.steps:
            for needed in step.needs:
                self._readers[needed].append(step.id)
        self._ready = [self._index[step] for step, missing in self._missing.items() if not missing]
        heapq.heapify(self._ready)

    def index(self, step: str) -> int:
        """A step's place in the graph."""
        return self._index[step]

    def step(self, step: str) -> Step:
        """The step of an id."""
        return self.graph.steps[self._index[step]]

    def take_ready(self) -> Iterator[Step]:
        """Every step that can run, in order; also those that become ready while they are taken. Each comes once."""
        while self._ready:
            yield self.graph.steps[heapq.heappop(self._ready)]

    def done(self, step: str) -> None:
        """A step's result is there: what waited only for it is ready now."""
        for reader in self._readers[step]:
            missing = self._missing.get(reader)
            if missing is not None and step in missing:
                missing.discard(step)
                if not missing:
                    heapq.heappush(self._ready, self._index[reader])
        self._missing.pop(step, None)

    def again(self, step: str, reader: str | None = None) -> None:
        """A step's result was lost: it has to run again, and `reader` waits for it."""
        self._missing[step] = set()
        if reader is not None:
            self._missing[reader] = {step}
        heapq.heappush(self._ready, self._index[step])

    def behind(self, steps: Iterable[str]) -> set[str]:
        """Every step that needs one of these, directly or not, and is not done."""
        found: set[str] = set()
        pending = list(steps)
        while pending:
            for reader in self._readers[pending.pop()]:
                if reader in self._missing and reader not in found:
                    found.add(reader)
                    pending.append(reader)
        return found

    def left(self) -> set[str]:
        """Every step that is not done."""
        return set(self._missing)
