"""A training that diverges is taken back once, with half the learning rate; the clock and interruptions decide nothing."""

from __future__ import annotations

import pytest
import torch

from colbuild.errors import BuildError, StoppedError
from colbuild.progress import silent
from colbuild.train.loop.keeper import Keeping, milestones
from colbuild.train.loop.loop import train
from colbuild.train.loop.steady import trouble
from colbuild.train.loop.teaching import online
from colbuild.train.loop.training_state import Setback
from tests.train.helpers import batch_of, recipe, running, same, student_of, text, tiny_llama, weights_of

STEPS = 48
FAILS = 30


def run(folder=None, *, fails=(FAILS,), every=1e9, stop_at=None, report=silent):
    """(weights, state) of a training whose gradient is no number when it first comes to each step of `fails`."""
    model, teacher, how = tiny_llama(1), tiny_llama(2, hidden=48), recipe(steps=STEPS)
    asked, to_fail, now = iter(range(10**6)), list(fails), [0]

    def batches(index):
        now[0] = index
        return batch_of(text(index))

    def spoil(gradient):
        if to_fail and now[0] == to_fail[0]:
            to_fail.pop(0)
            return torch.full_like(gradient, float("nan"))
        return gradient

    student = student_of(model)
    model.model.norm.weight.register_hook(spoil)
    keeping = Keeping(folder, every, lambda: stop_at is not None and next(asked) >= stop_at)
    where = running(how, keeping=keeping, report=report)
    state = train(student, online(teacher), batches, how, 0.0, where)
    return weights_of(model), state


def test_diverged_training_goes_on_from_the_last_quarter_with_half_the_learning_rate(tmp_path):
    _, calm = run(fails=())
    _, state = run(tmp_path)
    assert state.setback == Setback(FAILS, "the gradient's norm is nan", STEPS // 2)
    assert state.step == STEPS
    assert state.readings[: STEPS // 2] == calm.readings[: STEPS // 2]
    assert state.readings[STEPS // 2].loss == calm.readings[STEPS // 2].loss
    for after, before in zip(state.readings[STEPS // 2 :], calm.readings[STEPS // 2 :], strict=True):
        assert after.lr == 0.5 * before.lr


def test_before_the_first_quarter_it_begins_again(tmp_path):
    _, state = run(tmp_path, fails=(5,))
    assert state.setback == Setback(5, "the gradient's norm is nan", 0)
    assert state.readings[0].loss == run(fails=())[1].readings[0].loss


def test_the_clock_and_missing_checkpoints_do_not_decide_where_it_goes_on(tmp_path):
    wanted = run(tmp_path / "rare")
    assert same(wanted[0], run(tmp_path / "often", every=0.0)[0])


def test_interrupted_after_a_setback_equals_uninterrupted(tmp_path):
    wanted, state = run(tmp_path / "whole")
    for stop_at in (26, FAILS + 3, FAILS + 10):
        folder = tmp_path / str(stop_at)
        with pytest.raises(StoppedError):
            run(folder, stop_at=stop_at)
        # A weight that fails once does not do so again: a divergence of its own would come back with every replay.
        found, again = run(folder, fails=(FAILS,) if stop_at < FAILS else ())
        assert same(found, wanted)
        assert again.setback == state.setback
        assert again.readings == state.readings


def test_second_divergence_is_an_error_that_tells_both(tmp_path):
    with pytest.raises(BuildError, match="norm is nan at step 41 of 48, with half the learning rate; before") as caught:
        run(tmp_path, fails=(FAILS, 40))
    assert "at step 31" in caught.value.message
    assert "optimizer.lr" in caught.value.hint


def test_progress_says_that_the_learning_rate_was_halved(tmp_path):
    told = []
    run(tmp_path, report=told.append)
    assert "half the learning rate since the gradient's norm is nan at step 31" in told[-1].phase


def test_short_training_has_no_milestones_and_others_have_quarters():
    assert milestones(39) == frozenset()
    assert sorted(milestones(48)) == [12, 24, 36]


@pytest.mark.parametrize(
    ("losses", "loss", "norm", "expected"),
    [
        ([], float("nan"), 1.0, "the loss is nan"),
        ([2.0], 2.0, float("inf"), "the gradient's norm is inf"),
        ([2.0] * 4, 15.9, 1.0, None),
        ([2.0], 16.1, 1.0, "the loss has exploded from 2 to 16.1"),
        ([2.0] * 30, 8.1, 1.0, "the loss has exploded from 2 to 8.1"),
        ([2.0] * 30, 7.9, 1.0, None),
        ([9.0] * 30 + [0.1] * 20, 2.2, 1.0, None),
        ([9.0] * 30 + [0.1] * 20, 2.4, 1.0, "the loss has exploded from 0.1 to 2.4"),
    ],
)
def test_trouble_is_a_loss_far_above_the_usual_or_no_number(losses, loss, norm, expected):
    assert trouble(losses, loss, norm) == expected
