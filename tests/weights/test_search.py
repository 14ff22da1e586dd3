"""The search for a mixture, on losses that cost nothing to compute."""

from __future__ import annotations

import math
import random
from dataclasses import astuple, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colbuild.plan.steps.interpolate import FILLED_CANDIDATES, NESTED_SCORINGS, SCORINGS
from colbuild.progress import Progress, silent
from colbuild.weights.mixing.alpha_search import (
    GRID,
    Axes,
    Scored,
    Scores,
    best_of,
    donor_alpha,
    expanded_alpha,
    group_alpha,
    lowest_point,
    nested_alpha,
)
from colbuild.weights.mixing.layer_alpha import STEPS, Slopes, layer_alpha
from colbuild.weights.mixing.mixture import EXPAND, SUBSET, Mix, even

AXES = st.builds(Axes, fill=st.booleans(), depth=st.booleans(), nested=st.booleans())
FULL = Axes(fill=True, depth=True)


def values_of(how):
    """A mixture's coordinates without its origin."""
    return astuple(how)[:5]


def alike(score):
    """Scores in which the first part of the text says the same as all of it."""
    return Scores(score, score)


def bowl(target, nested=False):
    """A loss with one lowest point, of mixtures with the smaller anchor or the nested student; the others are worse by far."""
    return alike(
        lambda how: (
            3.0 + sum((a - b) ** 2 for a, b in zip(values_of(how), target, strict=True)) + 9.0 * (how.nested != nested)
        )
    )


def rough(seed):
    """Any loss at all, the same for the same mixture; another one on the first part of the text."""

    def score(text):
        return lambda how: random.Random(f"{seed}:{text}:{astuple(how)}").random() / 20

    return Scores(score("whole"), score("part"))


@given(st.integers(0, 10**6), AXES)
@settings(max_examples=60, deadline=None)
def test_group_alpha_is_never_worse_than_both_ends(seed, axes):
    scores = rough(seed)
    best = best_of(group_alpha(scores, axes, silent)).loss
    # No loss is 0.05 higher than another: the first part of the text rules out neither end.
    assert best <= min(scores.whole(axes.without_absent(end)) for end in (SUBSET, EXPAND))


@given(st.integers(0, 10**6), AXES)
@settings(max_examples=30, deadline=None)
def test_group_alpha_scores_few_mixtures_and_takes_one_of_those_scored_on_all_of_the_text(seed, axes):
    found = group_alpha(rough(seed), axes, silent)
    part, whole = (sum(entry.part is wanted for entry in found) for wanted in (True, False))
    assert part <= SCORINGS["group_alpha"].part + (NESTED_SCORINGS["group_alpha"].part if axes.nested else 0)
    assert whole <= SCORINGS["group_alpha"].whole + (NESTED_SCORINGS["group_alpha"].whole if axes.nested else 0)
    assert not best_of(found).part


def test_an_end_that_is_far_worse_on_part_of_the_text_is_not_scored_on_all_of_it():
    found = group_alpha(bowl((0.0,) * 5), FULL, silent)
    assert [entry.mix for entry in found if not entry.part] == [SUBSET]
    assert {entry.mix for entry in found if entry.part} >= {SUBSET, EXPAND}


@given(st.integers(0, 10**6), AXES)
@settings(max_examples=60, deadline=None)
def test_a_nested_student_only_adds_candidates(seed, axes):
    for search in (donor_alpha, group_alpha):
        without = search(rough(seed), replace(axes, nested=False), silent)
        having = search(rough(seed), replace(axes, nested=True), silent)
        assert set(without) <= set(having)
        added = {entry.mix for entry in having if entry.mix.nested}
        assert replace(EXPAND, fill=0.0, depth=0.0, nested=True) in added
        # It lacks nothing, so coordinates of what is lacking are not searched.
        assert all((how.fill, how.depth) == (0.0, 0.0) for how in added)


@given(st.tuples(*[st.floats(0, 1)] * 3))
@settings(max_examples=30, deadline=None)
def test_group_alpha_comes_near_the_lowest_point_of_a_nested_student(target):
    best = best_of(group_alpha(bowl((*target, 0.0, 0.0), nested=True), replace(FULL, nested=True), silent))
    assert best.mix.nested
    assert all(abs(a - b) <= 1 / 16 for a, b in zip(values_of(best.mix), target, strict=False))


@given(st.tuples(*[st.floats(0, 1)] * 5))
@settings(max_examples=30, deadline=None)
def test_group_alpha_comes_near_the_lowest_point(target):
    best = best_of(group_alpha(bowl(target), FULL, silent))
    # A parabola is met exactly, but for rounding to a multiple of a sixteenth and gains that are too small to look at.
    assert all(abs(a - b) <= 1 / 16 for a, b in zip(values_of(best.mix), target, strict=True))


@given(st.integers(0, 10**6), AXES)
@settings(max_examples=30, deadline=None)
def test_search_is_deterministic_and_asks_for_no_mixture_twice(seed, axes):
    for search in (donor_alpha, group_alpha):
        first, second = search(rough(seed), axes, silent), search(rough(seed), axes, silent)
        assert first == second
        assert len({(entry.mix, entry.part) for entry in first}) == len(first)
        assert all(0.0 <= value <= 1.0 for entry in first for value in values_of(entry.mix))


def test_coordinates_without_parts_are_not_searched():
    found = group_alpha(bowl((0.3, 0.6, 0.9, 0.1, 0.1)), Axes(fill=False, depth=False), silent)
    tried = {(entry.mix.embedding, entry.mix.attention, entry.mix.mlp, entry.part) for entry in found}
    # Two mixtures that differ in parts that do not exist are one: it is scored once.
    assert len(tried) == len(found)


@given(st.floats(-1, 2), st.floats(0.1, 5), st.floats(-3, 3))
def test_the_lowest_point_of_a_parabola_is_found_unless_one_of_the_three_is_as_good(where, bend, height):
    three = [height + bend * (value - where) ** 2 for value in (0.0, 0.5, 1.0)]
    found = lowest_point(*three)
    if found is None:
        assert not 0 < where < 1 or min(three) - height <= 5e-4 + bend / 32**2 + 1e-9
    else:
        assert abs(found - where) <= 1 / 32 + 1e-9
        assert found * 16 == int(found * 16)


@pytest.mark.parametrize("three", [(1.0, 2.0, 1.0), (1.0, 1.0, 1.0), (1.0, math.inf, 1.0), (math.nan, 1.0, 2.0)])
def test_losses_that_make_no_parabola_have_no_lowest_point(three):
    assert lowest_point(*three) is None


def test_another_expansion_is_tried_on_a_line():
    found = expanded_alpha("zero")(rough(1), FULL, silent)
    assert [entry.mix for entry in found] == [even(alpha, "zero") for alpha in GRID]
    assert len(found) == FILLED_CANDIDATES


@given(st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_nested_alpha_looks_at_mixtures_with_the_prefix_and_the_subset_alone(seed):
    found = nested_alpha(rough(seed), replace(FULL, nested=True), silent)
    assert {entry.mix for entry in found if not entry.mix.nested} == {SUBSET}
    assert Mix(1.0, 1.0, 1.0, 0.0, 0.0, nested=True) in {entry.mix for entry in found}
    assert sum(entry.part for entry in found) <= SCORINGS["nested"].part
    assert sum(not entry.part for entry in found) <= SCORINGS["nested"].whole


@given(st.lists(st.floats(0.05, 0.95), min_size=4, max_size=4))
@settings(max_examples=20, deadline=None)
def test_layer_alpha_goes_down_to_the_lowest_point(target):
    """A bowl in the embedding's alpha and those of three layers, of which only the larger anchor has the last."""

    def loss(how):
        values = (how.embedding, *how.layers) if how.layers else (how.embedding, how.mlp, how.mlp, how.depth)
        return 3.0 + sum((a - b) ** 2 for a, b in zip(values, target, strict=True))

    def slopes(how):
        along = [2.0 * (a - b) for a, b in zip((how.embedding, *how.layers), target, strict=True)]
        return Slopes(loss(how), along[0], tuple(along[1:]))

    found = layer_alpha(slopes, [False, False, True])(alike(loss), Axes(fill=False, depth=True), silent)
    line, descent = found[:-STEPS], found[-STEPS:]
    assert all(not entry.mix.layers for entry in line)
    assert all(0.0 <= alpha <= 1.0 for entry in descent for alpha in entry.mix.layers)
    begun, best = descent[0].loss, best_of(found).loss
    assert best - 3.0 <= 0.35 * (begun - 3.0) + 1e-3
    assert best <= best_of(line).loss


def test_the_earliest_of_equals_is_kept():
    first, second = Scored(SUBSET, 1.0), Scored(EXPAND, 1.0)
    assert best_of([first, second]) is first
    assert best_of([second, first]) is second


def test_a_loss_that_is_no_number_is_never_the_best():
    assert best_of([Scored(SUBSET, math.nan), Scored(EXPAND, 9.0)]).mix == EXPAND
    assert best_of([Scored(SUBSET, math.inf), Scored(EXPAND, 9.0)]).mix == EXPAND


@pytest.mark.parametrize("search", [donor_alpha, group_alpha, nested_alpha, expanded_alpha("copy")])
def test_progress_counts_up_and_never_passes_its_total(search):
    told: list[Progress] = []
    scored = search(bowl((0.3,) * 5), replace(FULL, nested=True), told.append)
    counts = [entry.done for entry in told]
    assert counts == list(range(1, len(scored) + 1))
    assert all(entry.done <= entry.total for entry in told)
