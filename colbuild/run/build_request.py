"""The arguments of a build."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from colbuild.events import Listener
from colbuild.fetch.contents import Sources
from colbuild.plan.cost.machine_resources import Demand, Resources, demand_of, machine
from colbuild.plan.drawing.build_graph import BuildGraph
from colbuild.plan.drawing.step import Step
from colbuild.store import ActionRecord, Store
from colbuild.store.durable_files import safe_name

OnFinished = Callable[[Step, ActionRecord], None]


@dataclass(frozen=True)
class Options:
    """The options of a build; none changes a result.

    Attributes:
        jobs: How many steps run side by side at most; as many as the resources allow by default.
        keep_going: Whether what does not need a failed step is still built.
        retries: How often a step that crashed, ran out of memory or missed its source is run again.
        resources: What the build may use; the machine by default.
        remote: The URL of a remote cache to read through; None for none.
        push: Whether new results are put there.
    """

    jobs: int | None = None
    keep_going: bool = False
    retries: int = 0
    resources: Resources | None = None
    remote: str | None = None
    push: bool = False


@dataclass(frozen=True)
class BuildRequest:
    """Brings every step's result of a graph into a store.

    Attributes:
        graph: The steps, in topological order.
        family: Its name, under which the store remembers the steps.
        store: Where results are looked up and put.
        sources: Where contents from outside come from.
        listener: Told of every event.
        finished: Called after each step with its record, cached or not.
        logs: The folder for what steps print; made when the first one runs.
        memory: Step id -> bytes that it needs at its peak, as far as that can be told.
        options: How.
    """

    graph: BuildGraph
    family: str
    store: Store
    sources: Sources
    listener: Listener
    finished: OnFinished
    logs: Path
    memory: Mapping[str, int]
    options: Options

    @cached_property
    def resources(self) -> Resources:
        """The resources that the build may use."""
        return self.options.resources or machine()

    def demand(self, step: Step) -> Demand:
        """Returns the resources of a running step."""
        return demand_of(step.op, self.memory.get(step.id, 0), self.resources)

    def log(self, step: str) -> Path:
        """The file for what a step prints."""
        return self.logs / f"{safe_name(step)}.log"
