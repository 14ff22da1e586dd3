"""Simulates the executor's rules, for the time of steps that run side by side."""

from __future__ import annotations

import heapq
from bisect import insort
from collections.abc import Mapping

from colbuild.plan.cost.machine_resources import Demand, Resources, demand_of, first_fitting
from colbuild.plan.cost.waiting import Waiting
from colbuild.plan.drawing.build_graph import BuildGraph


def makespan(
    graph: BuildGraph, seconds: Mapping[str, float], memory: Mapping[str, int], resources: Resources
) -> tuple[float, int]:
    """(seconds from the first start to the last end, bytes of memory at the fullest moment).

    Args:
        graph: The steps, in topological order.
        seconds: Step id -> how long it takes; steps that are not named are there already.
        memory: Step id -> bytes that it needs, as far as they are known.
        resources: What the build may use.
    """
    waiting = Waiting(graph)
    queue: list[str] = []
    ends: list[tuple[float, str]] = []
    running: dict[str, Demand] = {}
    demands = {
        step.id: demand_of(step.op, memory.get(step.id, 0), resources) for step in graph.steps if step.id in seconds
    }
    now, fullest = 0.0, 0
    while True:
        for step in waiting.take_ready():
            if step.id in seconds:
                # Most steps become ready in order, so the place is near the end.
                insort(queue, step.id, key=waiting.index)
            else:
                waiting.done(step.id)
        while (started := first_fitting(queue, demands, running, resources)) is not None:
            queue.remove(started)
            running[started] = demands[started]
            heapq.heappush(ends, (now + seconds[started], started))
        fullest = max(fullest, sum(memory.get(step, 0) for step in running))
        if not ends:
            return now, fullest
        now, ended = heapq.heappop(ends)
        del running[ended]
        waiting.done(ended)
