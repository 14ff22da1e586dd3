"""The loops that are compared compute the same thing."""

from __future__ import annotations

import torch

from colbuild.train.losses.losses import LossWeights, TeacherView, chunked_distillation_loss
from tests.benchmarks.distill import _bars, _step
from tests.benchmarks.distill_dense import dense_loss
from tests.benchmarks.distill_loops import CACHED, COMPILED, DENSE, EAGER, Batches, Timing, recipe


def test_dense_loop_and_chunked_loss_are_one_loss():
    generator = torch.Generator().manual_seed(5)
    rows, tokens, hidden, vocabulary = 2, 7, 8, 31
    states = torch.randn(rows, tokens, hidden, generator=generator, requires_grad=True)
    head = torch.randn(vocabulary, hidden, generator=generator, requires_grad=True)
    their_states = torch.randn(rows, tokens, hidden, generator=generator)
    their_head = torch.randn(vocabulary, hidden, generator=generator)
    targets = torch.randint(vocabulary, (rows, tokens), generator=generator)

    dense = dense_loss(states @ head.T, their_states @ their_head.T, targets)
    wanted = torch.autograd.grad(dense, (states, head))
    view = TeacherView(their_states.flatten(0, 1), their_head)
    chunked, _, _ = chunked_distillation_loss(
        states.flatten(0, 1), head, view, targets.flatten(), LossWeights(kd=0.6, ce=0.4)
    )
    found = torch.autograd.grad(chunked, (states, head))

    torch.testing.assert_close(chunked.double(), dense.double(), rtol=1e-5, atol=1e-6)
    for gradient, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-4, atol=1e-6)


def test_dense_loop_weighs_as_the_default_recipe_does():
    from colbuild.spec.model.recipe import Loss

    assert (Loss().type, Loss().kd_weight, Loss().ce_weight, Loss().temperature) == ("forward_kl", 0.6, 0.4, 1.0)


def test_recipes_of_the_benchmark_ask_for_its_steps():
    from colbuild.plan.workload.training import steps_of
    from colbuild.spec.model.recipe import Recipe

    batches = Batches(steps=5, batch=4, sequence=512)
    for loop in (EAGER, COMPILED, CACHED):
        assert steps_of(Recipe.model_validate(recipe(batches, 3, loop.values), strict=False)) == batches.steps


def test_a_slow_second_step_is_not_counted():
    assert (
        _step([Timing(1.0, (9.0, 2.0, 2.0), 1.0), Timing(1.0, (9.0, 3.0, 3.0), 1.0), Timing(1.0, (9.0, 4.0), 1.0)])
        == 3.0
    )


def test_bars_compare_what_was_measured():
    from tests.benchmarks.distill import GKD

    speed = {DENSE: 100.0, COMPILED: 250.0, CACHED: 500.0, GKD: 125.0}
    large = {DENSE: Timing(0.0, (1.0,), 20.0), COMPILED: Timing(0.0, (1.0,), 6.0), GKD: None}
    bars = {bar.name: bar for bar in _bars(speed, large, {COMPILED: 3.0, CACHED: 3.01})}

    assert [(bar.value, bar.holds) for bar in bars.values()] == [
        (2.0, False),
        (2.5, True),
        (0.3, True),
        (0.5, True),
        (0.01, True),
    ]
