"""Which steps can run next."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from colbuild.plan.cost.waiting import Waiting
from colbuild.plan.drawing.build_graph import BuildGraph
from tests.helpers.steps import named_step


def graph_of(needs: list[list[int]]) -> BuildGraph:
    """Step i needs the steps needs[i], all of them before it."""
    steps = tuple(
        named_step(f"s{index}", "evaluate", {}, {f"r{other}": f"s{other}" for other in others})
        for index, others in enumerate(needs)
    )
    return BuildGraph(steps, {}, {}, {}, {})


@st.composite
def graphs(draw: st.DrawFn) -> BuildGraph:
    count = draw(st.integers(1, 12))
    return graph_of([draw(st.lists(st.integers(0, i - 1), unique=True)) if i else [] for i in range(count)])


@given(graphs())
def test_every_step_comes_once_and_after_all_that_it_needs(graph):
    waiting, done = Waiting(graph), []
    for step in waiting.take_ready():
        assert set(step.inputs.values()) <= set(done)
        done.append(step.id)
        waiting.done(step.id)
    assert sorted(done) == sorted(step.id for step in graph.steps)
    assert not waiting.left()


@given(graphs(), st.data())
def test_nothing_behind_a_failed_step_becomes_ready_and_everything_else_does(graph, data):
    broken = data.draw(st.sampled_from([step.id for step in graph.steps]))
    waiting, done = Waiting(graph), []
    for step in waiting.take_ready():
        if step.id != broken:
            done.append(step.id)
            waiting.done(step.id)
    needs = {step.id: set(step.inputs.values()) for step in graph.steps}
    behind = {broken}
    for step in graph.steps:
        if needs[step.id] & behind:
            behind.add(step.id)
    assert set(done) == needs.keys() - behind
    assert waiting.behind([broken]) == behind - {broken}
    assert waiting.left() == behind


def test_of_what_is_ready_the_first_in_the_graph_comes_first():
    waiting = Waiting(graph_of([[], [], [0], [1]]))
    assert [step.id for step in waiting.take_ready()] == ["s0", "s1"]
    waiting.done("s1")
    waiting.done("s0")
    assert [step.id for step in waiting.take_ready()] == ["s2", "s3"]


def test_a_lost_result_is_made_again_before_its_reader_runs():
    waiting = Waiting(graph_of([[], [0], [0]]))
    [first] = waiting.take_ready()
    waiting.done(first.id)
    assert [step.id for step in waiting.take_ready()] == ["s1", "s2"]
    waiting.again("s0", "s1")
    assert [step.id for step in waiting.take_ready()] == ["s0"]
    waiting.done("s0")
    # s2 was taken before and did not lose anything.
    assert [step.id for step in waiting.take_ready()] == ["s1"]
