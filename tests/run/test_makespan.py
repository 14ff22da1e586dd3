"""How long a build takes whose steps run side by side."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colbuild.plan.cost.machine_resources import Resources, demand_of
from colbuild.plan.cost.makespan import makespan
from colbuild.plan.drawing.build_graph import BuildGraph
from tests.helpers.steps import named_step
from tests.run.test_waiting import graphs

TWO = Resources(2, 10**10)


def chain_of(*ops: str) -> BuildGraph:
    steps = [
        named_step(f"s{place}", op, {}, {"before": f"s{place - 1}"} if place else {}) for place, op in enumerate(ops)
    ]
    return BuildGraph(tuple(steps), {}, {}, {}, {})


def test_steps_that_need_one_another_add_up():
    assert makespan(chain_of("source", "order", "distill"), {"s0": 1.0, "s1": 2.0, "s2": 4.0}, {}, TWO)[0] == 7.0


def test_steps_that_need_half_the_cores_run_in_pairs():
    graph = BuildGraph(tuple(named_step(name, "evaluate", {}) for name in "abc"), {}, {}, {}, {})
    assert makespan(graph, dict.fromkeys("abc", 2.0), {}, TWO)[0] == 4.0
    assert makespan(graph, dict.fromkeys("abc", 2.0), {}, Resources(6, 10**10))[0] == 4.0
    assert makespan(graph, dict.fromkeys("abc", 2.0), {}, Resources(1, 10**10))[0] == 6.0


def test_memory_keeps_them_apart():
    graph = BuildGraph(tuple(named_step(name, "evaluate", {}) for name in "ab"), {}, {}, {}, {})
    assert makespan(graph, {"a": 2.0, "b": 3.0}, dict.fromkeys("ab", 6 * 10**9), TWO) == (5.0, 6 * 10**9)
    assert makespan(graph, {"a": 2.0, "b": 3.0}, dict.fromkeys("ab", 4 * 10**9), TWO) == (3.0, 8 * 10**9)


def test_what_is_in_the_store_takes_no_time():
    assert makespan(chain_of("source", "order", "distill"), {"s2": 4.0}, {}, TWO) == (4.0, 0)
    assert makespan(chain_of("source"), {}, {}, TWO) == (0.0, 0)


@given(graphs(), st.data(), st.integers(1, 8))
def test_it_is_never_longer_than_one_after_the_other_nor_shorter_than_the_longest_way(graph, data, cores):
    seconds = {step.id: float(data.draw(st.integers(1, 9))) for step in graph.steps}
    there = Resources(cores, 10**10)
    longest: dict[str, float] = {}
    for step in graph.steps:
        longest[step.id] = seconds[step.id] + max((longest[needed] for needed in step.inputs.values()), default=0.0)
    work = sum(seconds[step.id] * demand_of(step.op, 0, there).cores for step in graph.steps)
    found, _ = makespan(graph, seconds, {}, there)
    assert max(*longest.values(), work / cores) <= found + 1e-9
    assert found <= sum(seconds.values()) + 1e-9


@pytest.mark.parametrize("count", [2000])
def test_thousands_of_steps_are_played_through_in_a_moment(count):
    steps = [named_step("root", "distill", {})]
    steps += [named_step(f"s{place}", "evaluate", {}, {"model": "root"}) for place in range(count)]
    graph = BuildGraph(tuple(steps), {}, {}, {}, {})
    assert makespan(graph, {step.id: 1.0 for step in steps}, {}, TWO)[0] == 1 + count / 2
