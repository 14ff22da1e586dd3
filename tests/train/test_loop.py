"""The training loop on models of ten thousand parameters."""

from __future__ import annotations

import itertools
from dataclasses import astuple

import pytest
import torch

from colbuild.errors import BuildError
from colbuild.plan.workload.training import steps_of
from colbuild.progress import silent
from colbuild.train.batch import IGNORED
from colbuild.train.loop import loop
from colbuild.train.loop.teaching import online
from colbuild.train.losses.divergences import DIVERGENCES
from tests.train.helpers import batch_of, recipe, running, same, student_of, text, tiny_llama, train, weights_of


def trained(how=None, *, student=1, seed=0, dtype=torch.float32, **config):
    """(weights after training a fresh student, its readings)."""
    model, teacher = tiny_llama(student, dtype=dtype, **config), tiny_llama(2, hidden=48, dtype=dtype, **config)
    readings = train(model, teacher, lambda step: text(step, seed=seed), how or recipe(), silent)
    return weights_of(model), readings


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_training_lowers_the_loss(precision, dtype):
    _, readings = trained(recipe(steps=40, precision=precision, loss={"kd_weight": 0.9, "ce_weight": 0.1}), dtype=dtype)
    assert len(readings) == 40
    assert readings[-1].loss < 0.7 * readings[0].loss
    assert readings[-1].kl < 0.7 * readings[0].kl


@pytest.mark.parametrize("kind", sorted(DIVERGENCES))
def test_training_on_each_divergence_lowers_it(kind):
    _, readings = trained(recipe(steps=40, loss={"type": kind, "kd_weight": 1.0, "ce_weight": 0.0}))
    assert readings[-1].kl < 0.7 * readings[0].kl
    assert all(reading.loss == pytest.approx(reading.kl) for reading in readings)


def test_the_skew_and_the_decay_of_a_recipe_reach_the_training():
    def curve(**changes):
        return trained(recipe(steps=10, **changes))[1]

    # What is compared is mixed with its own: the more of it, the closer the two are.
    apart = [curve(loss={"type": "skew_rkl", "skew": skew})[0].kl for skew in (0.0, 0.1, 0.5)]
    assert apart[0] > apart[1] > apart[2]
    assert apart[0] == pytest.approx(curve(loss={"type": "reverse_kl"})[0].kl)
    assert curve(loss={"type": "skew_rkl"})[0].kl == apart[1]
    peaks = [[r.lr for r in curve(schedule={"type": "wsd", "decay": share})].count(3e-3) for share in (0.2, 0.5)]
    assert peaks == [7, 4]


@pytest.mark.parametrize("kind", sorted(DIVERGENCES))
@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_a_student_that_is_its_teacher_stays_as_it_is(kind, precision, dtype):
    student, teacher = tiny_llama(1, dtype=dtype), tiny_llama(1, dtype=dtype)
    how = recipe(steps=3, precision=precision, loss={"type": kind, "kd_weight": 1.0, "ce_weight": 0.0})
    readings = train(student, teacher, text, how, silent)
    assert {reading.loss for reading in readings} == {0.0}
    assert same(weights_of(student), weights_of(teacher))


def test_text_alone_can_be_learned():
    _, readings = trained(recipe(steps=60, loss={"kd_weight": 0.0, "ce_weight": 1.0}))
    assert readings[-1].ce < readings[0].ce - 1.0
    assert all(reading.loss == pytest.approx(reading.ce) for reading in readings)


def test_readings_add_up_and_follow_the_schedule():
    how = recipe(steps=10, loss={"kd_weight": 0.7, "ce_weight": 0.2, "temperature": 2.0})
    _, readings = trained(how)
    assert [reading.step for reading in readings] == list(range(10))
    assert all(reading.loss == pytest.approx(0.7 * reading.kl + 0.2 * reading.ce) for reading in readings)
    lrs = [reading.lr for reading in readings]
    assert max(lrs) == pytest.approx(how.optimizer.lr)
    assert lrs[-1] == pytest.approx(how.optimizer.lr * how.schedule.final)


def test_the_teacher_stays_as_it_is():
    student, teacher = tiny_llama(1), tiny_llama(2)
    before = weights_of(teacher)
    train(student, teacher, text, recipe(), silent)
    assert same(weights_of(teacher), before)
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_every_weight_of_the_student_moves_and_none_keeps_a_gradient():
    before = weights_of(tiny_llama(1, tied=False, attention_bias=True))
    student = tiny_llama(1, tied=False, attention_bias=True)
    train(student, tiny_llama(2), text, recipe(), silent)
    after = weights_of(student)
    assert [name for name in before if torch.equal(before[name], after[name])] == []
    assert all(parameter.grad is None for parameter in student.parameters())
    assert not student.training


def test_a_tied_head_stays_tied():
    student = tiny_llama(1)
    train(student, tiny_llama(2), text, recipe(), silent)
    assert student.lm_head.weight is student.model.embed_tokens.weight


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_same_seed_gives_the_same_bytes_and_another_seed_others(precision, dtype):
    how = recipe(precision=precision)
    first, second, other = (trained(how, dtype=dtype, seed=seed) for seed in (0, 0, 1))
    assert same(first[0], second[0])
    assert first[1] == second[1]
    assert not same(first[0], other[0])


def test_random_state_elsewhere_does_not_matter():
    # A configuration with dropout would draw from torch's global generator.
    config = {"attention_dropout": 0.2}
    first, _ = trained(student=1, **config)
    torch.manual_seed(12345)
    model, teacher = tiny_llama(1, **config), tiny_llama(2, hidden=48, **config)
    torch.rand(7)
    train(model, teacher, text, recipe(), silent)
    assert same(first, weights_of(model))


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_accumulated_parts_equal_one_batch(rows):
    def gradients(at_once):
        student, model = student_of(tiny_llama(1)), tiny_llama(2, hidden=48)
        weights, where = loop.LossWeights(0.9, 0.1), running(recipe(), rows=at_once)
        teacher = online(model, tuple(model.model.layers))
        found = loop._accumulate(student, teacher, batch, 0, weights, 0.5, where)
        return found, {name: master.grad for name, master in student.masters.items()}

    batch = batch_of(text(0))
    # Rows of unequal weight: nothing is asked of half of the first one.
    batch.targets[0, :8] = IGNORED
    whole, parts = gradients(4), gradients(rows)
    assert whole[0].hidden > 0.1
    assert astuple(parts[0]) == pytest.approx(astuple(whole[0]), rel=1e-5)
    for name, gradient in whole[1].items():
        torch.testing.assert_close(parts[1][name], gradient, rtol=1e-3, atol=1e-6)


def test_training_is_what_torch_would_do_step_by_step():
    how = recipe(steps=4, optimizer={"lr": 1e-2, "weight_decay": 0.1, "clip": 0.5})
    found, readings = trained(how)
    student, teacher = tiny_llama(1), tiny_llama(2, hidden=48)
    matrices = [p for p in student.parameters() if p.dim() > 1]
    rest = [p for p in student.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-2, betas=how.optimizer.betas, eps=how.optimizer.eps)
    for step, reading in enumerate(readings):
        tokens = text(step)
        ours = torch.log_softmax(student(input_ids=tokens[:, :-1]).logits.flatten(0, 1), dim=-1)
        with torch.no_grad():
            theirs = torch.log_softmax(teacher(input_ids=tokens[:, :-1]).logits.flatten(0, 1), dim=-1)
        kl = torch.nn.functional.kl_div(ours, theirs, log_target=True, reduction="batchmean")
        entropy = torch.nn.functional.nll_loss(ours, tokens[:, 1:].flatten())
        loss = how.loss.kd_weight * kl + how.loss.ce_weight * entropy
        assert reading.loss == pytest.approx(loss.item(), rel=1e-4)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 0.5)
        for group in optimizer.param_groups:
            group["lr"] = reading.lr
        optimizer.step()
    for name, parameter in student.named_parameters():
        torch.testing.assert_close(found[name], parameter.detach(), rtol=1e-3, atol=2e-4)


def test_bf16_follows_fp32():
    _, exact = trained(recipe(steps=20))
    _, rough = trained(recipe(steps=20, precision="bf16"), dtype=torch.bfloat16)
    assert rough[-1].loss == pytest.approx(exact[-1].loss, rel=0.1)


def test_updates_smaller_than_bf16_can_show_are_not_lost():
    # With 60 steps of 1e-4, none of them visible in bf16 by itself, weights near 1 move all the same.
    how = recipe(steps=60, precision="bf16", optimizer={"lr": 1e-4}, schedule={"type": "constant", "warmup": 0.0})
    before = weights_of(tiny_llama(1, dtype=torch.bfloat16))
    after, _ = trained(how, dtype=torch.bfloat16)
    name = "model.norm.weight"
    assert bool((before[name] == 1.0).all())
    assert not torch.equal(before[name], after[name])


def test_loss_that_is_no_number_is_an_error():
    student = tiny_llama(1)
    with torch.no_grad():
        student.model.norm.weight[0] = float("nan")
    with pytest.raises(BuildError, match=r"the loss is nan at step 1 of 20") as caught:
        train(student, tiny_llama(2), text, recipe(), silent)
    assert "optimizer.lr" in caught.value.hint


def test_gradient_that_is_no_number_is_an_error_even_in_the_last_step():
    student = tiny_llama(1)
    next(student.parameters()).register_hook(lambda gradient: torch.full_like(gradient, float("inf")))
    before = weights_of(student)
    with pytest.raises(BuildError, match="gradient"):
        train(student, tiny_llama(2), text, recipe(steps=1), silent)
    assert same(weights_of(student), before)


def test_progress_counts_tokens():
    told = []
    train(tiny_llama(1), tiny_llama(2), text, recipe(steps=5), told.append)
    assert [entry.done for entry in told] == [64, 128, 192, 256, 320]
    assert {entry.total for entry in told} == {320}
    assert all("loss" in entry.metrics for entry in told)


def test_steps_are_the_tokens_in_whole_batches_and_at_least_one():
    assert steps_of(recipe(tokens=64 * 10)) == 10
    assert steps_of(recipe(tokens=64 * 10 + 20)) == 10
    assert steps_of(recipe(tokens=1)) == 1
    counts = [steps_of(recipe(tokens=tokens)) for tokens in range(1, 500, 7)]
    assert all(a <= b for a, b in itertools.pairwise(counts))
