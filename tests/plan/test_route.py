"""The cheapest distillations: exact against brute force, legal, and as the spec says whatever the store holds."""

from __future__ import annotations

from itertools import chain as joined
from itertools import combinations, pairwise, product

from hypothesis import given, settings
from hypothesis import strategies as st

from colbuild.arch import Shape, forward_flops
from colbuild.arch.solving import contains
from colbuild.plan.shapes.route import (
    cheapest_path,
    cheapest_route,
    distillation_flops,
    legal_gap,
    stepwise_route,
    wide_gaps,
)
from tests.plan.families import ANSNET, chain, graph

WIDE = 100.0


@st.composite
def problems(draw, most=6):
    """Sizes, forward FLOPs and tokens of a chain, what is required of it, and a limit; ties are likely."""
    count = draw(st.integers(1, most))
    sizes = sorted(draw(st.sets(st.integers(10, 60), min_size=count, max_size=count)), reverse=True)
    forward = sorted(draw(st.lists(st.integers(1, 6), min_size=count, max_size=count)), reverse=True)
    tokens = draw(st.lists(st.sampled_from([1, 2, 3, 10]), min_size=count, max_size=count))
    required = draw(st.sets(st.integers(0, count - 1)))
    return sizes, forward, tokens, required, draw(st.sampled_from([1.2, 1.5, 2.0, 2.5, WIDE]))


def rank(edges, sizes, cost):
    """How good a set of distillations is: FLOPs, then their number, then the sum of ratios in millionths."""
    return (
        sum(cost(teacher, student) for teacher, student in edges),
        len(edges),
        sum(sizes[teacher] * 1_000_000 // sizes[student] for teacher, student in edges),
    )


def every_way(sizes, required, limit):
    """Every set of built models with every legal teacher for each: trees of any form, not only paths."""
    needed = required - {0}
    optional = [place for place in range(1, len(sizes)) if place not in needed]
    for steps in joined.from_iterable(combinations(optional, number) for number in range(len(optional) + 1)):
        built = sorted({0, *needed, *steps})
        teachers = [
            [teacher for teacher in built if teacher < student and legal_gap(sizes[teacher], sizes[student], limit)]
            for student in built[1:]
        ]
        for chosen in product(*teachers):
            yield list(zip(chosen, built[1:], strict=True))


@settings(max_examples=400, deadline=None)
@given(problems())
def test_cheapest_route_is_as_good_as_the_best_of_all_trees(problem):
    sizes, forward, tokens, required, limit = problem

    def cost(teacher, student):
        return distillation_flops(tokens[student], forward[teacher], forward[student])

    best = min((rank(edges, sizes, cost) for edges in every_way(sizes, required, limit)), default=None)
    wide = wide_gaps(sizes[: max(required, default=0) + 1], limit)
    assert (best is None) == bool(wide)
    if best is not None:
        route = cheapest_route(sizes, cost, required, limit)
        edges = list(pairwise(route))
        assert route[0] == 0
        assert required <= set(route)
        assert all(legal_gap(sizes[teacher], sizes[student], limit) for teacher, student in edges)
        assert rank(edges, sizes, cost) == best


def passed_over_once(sizes, cost, required, limit):
    """The same route by one pass over each stretch between required positions, as colbuild found it before networkx."""
    count, stops = max(required, default=0) + 1, sorted({0, *required})

    def weight(teacher, student):
        return (cost(teacher, student), 1, sizes[teacher] * 1_000_000 // sizes[student])

    route = [0]
    for start, end in pairwise(stops):
        best = {start: ((0, 0, 0), start)}
        for student in range(start + 1, min(end + 1, count)):
            reached = [
                (tuple(map(sum, zip(best[teacher][0], weight(teacher, student), strict=True))), teacher)
                for teacher in best
                if legal_gap(sizes[teacher], sizes[student], limit)
            ]
            if reached:
                best[student] = min(reached)
        path = [end]
        while path[-1] != start:
            path.append(best[path[-1]][1])
        route += path[-2::-1]
    return tuple(route)


@settings(max_examples=300, deadline=None)
@given(problems(most=9), st.booleans())
def test_the_route_is_that_of_one_pass_ties_included(problem, flat):
    sizes, forward, tokens, required, limit = problem

    def cost(teacher, student):
        # Where all distillations cost the same, many routes tie in FLOPs and some in their ratios.
        return 1 if flat else distillation_flops(tokens[student], forward[teacher], forward[student])

    if not wide_gaps(sizes[: max(required, default=0) + 1], limit):
        assert cheapest_route(sizes, cost, required, limit) == passed_over_once(sizes, cost, required, limit)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_the_cheapest_path_is_the_best_of_all_paths_ties_included(data):
    """Anchors that are placed compare the number of distillations first, then their FLOPs."""
    end = data.draw(st.integers(1, 6))
    number = data.draw(st.integers(1, 3))
    costs = st.none() | st.tuples(*[st.sampled_from([0, 1, 2, 10**18])] * number)
    edges = {(start, to): data.draw(costs) for to in range(1, end + 1) for start in range(to)}
    edges = {ends: weights for ends, weights in edges.items() if weights is not None}

    def told(path):
        weights = [edges[ends] for ends in pairwise(path)]
        return tuple(map(sum, zip(*weights, strict=True))), path[::-1]

    every = [(0, *inner, end) for size in range(end) for inner in combinations(range(1, end), size)]
    legal = [path for path in every if all(ends in edges for ends in pairwise(path))]
    found = cheapest_path([(*ends, weights) for ends, weights in edges.items()], end)
    assert found == min(legal, key=told, default=None)


def test_between_routes_equal_in_all_the_one_whose_last_teacher_is_larger_is_taken():
    # 64 -> 32 -> 8 and 64 -> 16 -> 8: as many FLOPs, distillations, and as large a sum of ratios.
    assert cheapest_route([64, 32, 16, 8], lambda *_: 1, {3}, 4.0) == (0, 1, 3)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_smaller_teacher_of_the_chain_never_costs_more(data):
    """What makes the route exact: see `cheapest_route`."""
    pairs = data.draw(st.tuples(*[st.tuples(st.integers(1, 40), st.integers(1, 40))] * 4))
    high, low = (
        Shape(layers, hidden, ffn, 3 * kv_heads, kv_heads, 64, 49152)
        for layers, hidden, ffn, kv_heads in (map(pick, pairs) for pick in (max, min))
    )
    context = data.draw(st.integers(1, 4096))
    assert contains(high, low)
    assert forward_flops(ANSNET.at(high), context) >= forward_flops(ANSNET.at(low), context)


def test_between_equally_cheap_routes_the_one_of_fewer_distillations_is_taken():
    assert cheapest_route([40, 30, 20, 10], lambda teacher, student: student - teacher, {3}, WIDE) == (0, 3)


def test_between_equally_many_distillations_the_denser_chain_is_taken():
    assert cheapest_route([100, 90, 50, 25], lambda *_: 1, {3}, 2.5) == (0, 2, 3)
    assert cheapest_route([100, 90, 60, 40, 25], lambda *_: 1, {4}, 2.5) == (0, 2, 4)


def test_stepwise_goes_down_to_the_last_required():
    assert stepwise_route({2, 1}) == (0, 1, 2)
    assert stepwise_route({0}) == stepwise_route(()) == (0,)


# -- in a family ------------------------------------------------------------------------------------------------------

DENSE = """\
    - {name: a110, params: 110M}
    - {name: a90, params: 90M}
    - {name: a76, params: 76M}
    - {name: a40, params: 40M}
    - {name: a32, params: 32M}
    - {name: a20, params: 20M}
"""
SMALL = "  - {name: x, params: 36M}\n"
"""It lies between a40 and a32."""


def route(solved):
    """Student -> teacher, in the order of building."""
    return {step.student.name: step.teacher.name for step in solved.route}


def test_every_needed_anchor_of_the_default_family_learns_from_the_one_before_it(tmp_path):
    solved = chain(tmp_path)
    assert route(solved) == {"a100": "ansnet", "a76": "a100"}, "a76 from the AnsNet would be legal, and dearer"
    assert solved.unbuilt == ()


def test_anchors_that_only_add_cost_are_skipped_and_told_why(tmp_path):
    solved = chain(tmp_path, anchors=DENSE, desnets=SMALL)
    assert route(solved) == {"a76": "ansnet", "a40": "a76", "a32": "a40"}
    assert {unbuilt.anchor.name: unbuilt.reason for unbuilt in solved.unbuilt} == {
        "a110": "no DesNet needs it, and a76 is cheaper from the AnsNet directly",
        "a90": "no DesNet needs it, and a76 is cheaper from the AnsNet directly",
        "a20": "no DesNet needs it",
    }
    assert [step.student.name for step in solved.route if not step.required] == ["a76"]


def test_stepwise_builds_every_anchor_down_to_the_last_needed(tmp_path):
    solved = chain(tmp_path, anchors=f"{DENSE}  route: stepwise\n", desnets=SMALL)
    assert route(solved) == {"a110": "ansnet", "a90": "a110", "a76": "a90", "a40": "a76", "a32": "a40"}
    assert [(unbuilt.anchor.name, unbuilt.reason) for unbuilt in solved.unbuilt] == [("a20", "no DesNet needs it")]


def test_a_route_skips_nothing_that_a_desnet_lies_beside(tmp_path):
    desnets = SMALL + "  - {name: y, params: 100M}\n"
    assert route(chain(tmp_path, anchors=DENSE, desnets=desnets)) == {
        "a110": "ansnet",
        "a90": "a110",
        "a40": "a90",
        "a32": "a40",
    }


def test_a_short_step_in_between_is_taken_where_it_saves_more_than_it_costs(tmp_path):
    anchors = "    - {name: a90, params: 90M, tokens: %s}\n    - {name: a76, params: 76M, tokens: 1M}\n"
    desnets = "  - {name: x, params: 76M}\n"
    assert route(chain(tmp_path, anchors=anchors % "1k", desnets=desnets)) == {"a90": "ansnet", "a76": "a90"}
    assert route(chain(tmp_path, anchors=anchors % "1M", desnets=desnets)) == {"a76": "ansnet"}


def test_a_distillation_costs_a_forward_pass_of_the_teacher_and_three_of_the_student(tmp_path):
    first, second = chain(tmp_path).route
    forward = [forward_flops(step.structure, 256) for step in (first.teacher, first.student, second.student)]
    assert first.flops == 80_000 * (forward[0] + 3 * forward[1])
    assert second.flops == 80_000 * (forward[1] + 3 * forward[2])


def test_steps_follow_the_route_and_skipped_anchors_have_none(tmp_path):
    steps = {step.id: step for step in graph(tmp_path, anchors=DENSE, desnets=SMALL).steps}
    assert {name: step.inputs["teacher"] for name, step in steps.items() if step.op == "distill"} == {
        "distill a76": "order ansnet",
        "distill a40": "distill a76",
        "distill a32": "distill a40",
    }
    assert not [name for name in steps if "a110" in name or "a90" in name or "a20" in name]
    assert steps["interpolate x"].inputs == {
        "larger": "distill a40",
        "smaller": "distill a32",
        "corpus": "corpus train",
    }


def test_recovery_of_a_desnet_that_equals_an_anchor_learns_from_that_anchors_teacher(tmp_path):
    desnets = "  - {name: x, params: 76M, recover: {recipe: recipes/recover.yaml}}\n"
    built = graph(tmp_path, anchors=DENSE, desnets=desnets)
    assert next(step for step in built.steps if step.id == "recover x").inputs["teacher"] == "order ansnet"
