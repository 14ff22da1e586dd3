"""The learning rate: up in a straight line, then down to what is left."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colbuild.spec.model.recipe import Schedule
from colbuild.train.loop.schedule import CURVES, learning_rate

KINDS = st.sampled_from(sorted(CURVES))
SHARES = st.floats(0.0, 1.0)
STEPS = st.integers(1, 300)


def rates(steps, kind="cosine", warmup=0.1, final=0.1, peak=1.0, decay=0.2):
    return [
        learning_rate(step, steps, peak=peak, kind=kind, warmup=warmup, final=final, decay=decay)
        for step in range(steps)
    ]


def test_every_schedule_of_a_recipe_has_a_curve():
    assert set(Schedule.model_fields["type"].annotation.__args__) == set(CURVES)


@given(STEPS, KINDS, SHARES, SHARES)
def test_rate_is_positive_unless_nothing_is_left_and_never_above_the_peak(steps, kind, warmup, final):
    found = rates(steps, kind, warmup, final, peak=3e-4)
    assert all(0.0 <= rate <= 3e-4 * (1 + 1e-12) for rate in found)
    assert found[0] > 0.0


@given(STEPS, KINDS, SHARES, SHARES)
def test_rate_rises_and_then_falls(steps, kind, warmup, final):
    found = rates(steps, kind, warmup, final)
    rising = round(steps * warmup)
    assert all(a < b for a, b in itertools.pairwise(found[: rising + 1]))
    assert all(a >= b - 1e-15 for a, b in itertools.pairwise(found[rising:]))


@given(st.integers(4, 300), KINDS, st.floats(0.0, 0.5), SHARES)
def test_peak_follows_the_warm_up_and_the_end_is_final(steps, kind, warmup, final):
    found = rates(steps, kind, warmup, final, peak=2.0)
    assert found[round(steps * warmup)] == pytest.approx(2.0)
    assert found[-1] == pytest.approx(2.0 if kind == "constant" else 2.0 * final, abs=1e-12)


def test_warm_up_is_linear():
    assert rates(10, warmup=0.4)[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def test_curves_have_their_shapes():
    assert rates(5, "linear", 0.0, 0.0) == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0])
    assert rates(5, "constant", 0.0, 0.0) == pytest.approx([1.0] * 5)
    assert rates(5, "cosine", 0.0, 0.0) == pytest.approx([1.0, 0.8535534, 0.5, 0.1464466, 0.0])


def test_wsd_stays_at_the_peak_until_its_decay():
    found = rates(20, "wsd", 0.1, 0.0, decay=0.25)
    assert found[:2] == pytest.approx([1 / 3, 2 / 3])
    assert found[2:15] == pytest.approx([1.0] * 13)
    assert found[15:] == pytest.approx([0.8, 0.6, 0.4, 0.2, 0.0])


@given(st.integers(4, 300), SHARES, SHARES, SHARES)
def test_wsd_decays_in_its_share_of_the_steps_or_in_what_the_warm_up_leaves(steps, warmup, decay, final):
    found = rates(steps, "wsd", warmup, final, decay=decay)
    rising, falling = round(steps * warmup), max(1, round(steps * decay))
    assert found[rising : steps - falling] == pytest.approx([1.0] * max(0, steps - falling - rising))
    if falling <= steps - 1 - rising and final < 0.99:
        assert found[steps - falling] < 1.0


@given(STEPS, st.sampled_from(["cosine", "linear", "constant"]), SHARES, SHARES, SHARES)
def test_decay_means_nothing_to_other_schedules(steps, kind, warmup, final, decay):
    assert rates(steps, kind, warmup, final, decay=decay) == rates(steps, kind, warmup, final, decay=0.0)


def test_a_run_of_one_step_takes_the_peak():
    assert rates(1) == rates(1, "wsd") == [1.0]
