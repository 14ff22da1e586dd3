"""Every loss: its closed form, a chunk of tokens at a time, is its dense float64 definition; and it is a divergence."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from colbuild.spec.model.recipe import Loss
from colbuild.train.losses import chunks, losses
from colbuild.train.losses.divergences import DIVERGENCES
from colbuild.train.losses.losses import LossWeights, TeacherView, chunked_distillation_loss
from tests.train.dense_loss import distillation_loss

NAMES = sorted(DIVERGENCES)
SKEWED = ("skew_kl", "skew_rkl")
UNSKEWED = {"skew_kl": "forward_kl", "skew_rkl": "reverse_kl"}

names = st.sampled_from(NAMES)
skews = st.sampled_from([0.0, 1e-9, 0.1, 0.5, 0.9, 0.999]) | st.floats(0.0, 0.99)
temperatures = st.sampled_from([1.0, 2.0]) | st.floats(0.3, 8.0)
shares = st.sampled_from([0.0, 1.0]) | st.floats(0.0, 3.0)
tokens = st.integers(1, 13)
vocabularies = st.integers(2, 31)
spreads = st.sampled_from([0.01, 1.0, 5.0, 20.0])
seeds = st.integers(0, 2**31)


def case(seed, count, vocabulary, spread=1.0, dtype=torch.float64):
    """(student's hidden and head, teacher's view, targets); logits about `spread` apart."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*lengths):
        return torch.randn(*lengths, generator=generator, dtype=torch.float64).mul(spread**0.5).to(dtype)

    teacher = TeacherView(draw(count, 5), draw(vocabulary, 5))
    return draw(count, 3), draw(vocabulary, 3), teacher, torch.randint(0, vocabulary, (count,), generator=generator)


def run(loss, hidden, head):
    """(loss, divergence, cross-entropy, gradient by hidden, gradient by head)."""
    hidden, head = hidden.clone().requires_grad_(), head.clone().requires_grad_()
    value, apart, ce = loss(hidden, head)
    value.backward()
    return value.detach(), apart.detach(), ce.detach(), hidden.grad, head.grad


def dense(hidden, head, teacher, targets, weights):
    """The definition, in float64."""
    wise = teacher.hidden.double() @ teacher.head.double().T
    return run(lambda h, w: distillation_loss(h @ w.T, wise, targets, weights), hidden.double(), head.double())


def chunked(hidden, head, teacher, targets, weights):
    return run(lambda h, w: chunked_distillation_loss(h, w, teacher, targets, weights), hidden, head)


def test_every_loss_of_a_recipe_has_a_divergence():
    assert set(get_args(Loss.model_fields["type"].annotation)) == set(DIVERGENCES)


@settings(max_examples=300, deadline=None)
@given(names, skews, temperatures, shares, shares, tokens, vocabularies, spreads, st.integers(1, 6), seeds)
def test_chunked_values_and_gradients_are_those_of_the_dense_definition(
    name, skew, temperature, kd, ce, count, vocabulary, spread, chunk, seed
):
    hidden, head, teacher, targets = case(seed, count, vocabulary, spread)
    weights = LossWeights(kd, ce, temperature, name, skew)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(losses, "CHUNK_TOKENS", chunk)
        patch.setattr(chunks, "PRODUCT_BYTES", (2 * chunk + 1) * 8)
        found = chunked(hidden, head, teacher, targets, weights)
    for ours, theirs in zip(found, dense(hidden, head, teacher, targets, weights), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-10)


@settings(max_examples=100, deadline=None)
@given(names, st.sampled_from([0.0, 0.1, 0.5]), st.sampled_from([1.0, 2.0]), tokens, seeds)
def test_in_fp32_too_as_far_as_its_digits_reach(name, skew, temperature, count, seed):
    hidden, head, teacher, targets = case(seed, count, 31, 2.0, torch.float32)
    weights = LossWeights(0.9, 0.1, temperature, name, skew)
    found, expected = (how(hidden, head, teacher, targets, weights) for how in (chunked, dense))
    # The plain reverse KL has the logarithms themselves in its gradient, which nearly cancel.
    plain_reverse = name == "reverse_kl" or (name == "skew_rkl" and skew == 0.0)
    digits = 3e-5 if plain_reverse else 1e-5
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.double() - theirs).norm() <= digits * theirs.norm() + 1e-6


@settings(max_examples=60, deadline=None)
@given(
    names,
    skews,
    temperatures,
    tokens,
    spreads,
    seeds,
    st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
)
def test_a_student_that_is_its_teacher_has_nothing_to_learn_to_the_last_bit(
    name, skew, temperature, count, spread, seed, dtype
):
    hidden, head, _, targets = case(seed, count, 301, spread, dtype)
    same = TeacherView(hidden.clone(), head.clone())
    value, apart, _, by_hidden, by_head = chunked(
        hidden, head, same, targets, LossWeights(1.0, 0.0, temperature, name, skew)
    )
    assert value == apart == 0.0
    assert not by_hidden.any()
    assert not by_head.any()


@settings(max_examples=60, deadline=None)
@given(names, skews, temperatures, tokens, vocabularies, spreads, seeds)
def test_a_divergence_is_never_below_zero(name, skew, temperature, count, vocabulary, spread, seed):
    found = chunked(*case(seed, count, vocabulary, spread)[:4], weights=LossWeights(1.0, 0.0, temperature, name, skew))
    assert found[1] >= -1e-13


@settings(max_examples=60, deadline=None)
@given(tokens, vocabularies, spreads, seeds)
def test_jsd_is_symmetric_and_at_most_ln_2(count, vocabulary, spread, seed):
    hidden, head, teacher, targets = case(seed, count, vocabulary, 10 * spread)
    weights = LossWeights(1.0, 0.0, 1.0, "jsd")
    there = chunked(hidden, head, teacher, targets, weights)[1]
    back = chunked(teacher.hidden, teacher.head, TeacherView(hidden, head), targets, weights)[1]
    torch.testing.assert_close(there, back, rtol=1e-9, atol=1e-14)
    assert there <= math.log(2) + 1e-12


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(SKEWED), temperatures, tokens, vocabularies, seeds)
def test_without_skew_a_skewed_divergence_is_the_plain_one(name, temperature, count, vocabulary, seed):
    parts = case(seed, count, vocabulary)
    skewed = LossWeights(0.9, 0.1, temperature, name, 0.0)
    plain = replace(skewed, divergence=UNSKEWED[name])
    for how in (chunked, dense):
        for one, other in zip(how(*parts, skewed), how(*parts, plain), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("name", SKEWED)
def test_a_skewed_divergence_is_bounded_by_its_skew(name):
    hidden, head, teacher, targets = case(1, 12, 23, spread=200.0)
    apart = chunked(hidden, head, teacher, targets, LossWeights(1.0, 0.0, 1.0, name, 0.1))[1]
    plain = chunked(hidden, head, teacher, targets, LossWeights(1.0, 0.0, 1.0, UNSKEWED[name]))[1]
    assert apart <= math.log(10.0) < plain


def far_apart(dtype, scale):
    """A student that is sure of one token and a teacher that is sure of another, others in between."""
    hidden, head, teacher = (torch.eye(4, dtype=dtype) * scale for _ in range(3))
    return hidden, head, TeacherView(teacher, teacher.roll(1, dims=0)), torch.tensor([3, 2, 1, 0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("scale", [4.0, 16.0, 64.0, 8192.0], ids=str)
@pytest.mark.parametrize("skew", [0.0, 1e-30, 1e-9, 0.1, 0.5])
@pytest.mark.parametrize("name", NAMES)
def test_probabilities_too_small_to_be_held_give_finite_losses_and_gradients(name, skew, scale, dtype):
    # Logits are up to the square of the scale, which bf16 holds exactly; probabilities are down to exp(-1e8).
    hidden, head, teacher, targets = far_apart(dtype, scale)
    for temperature in (0.5, 1.0, 4.0):
        weights = LossWeights(0.9, 0.1, temperature, name, skew)
        found = chunked(hidden, head, teacher, targets, weights)
        assert all(bool(part.isfinite().all()) for part in found)
        exact = dense(hidden, head, teacher, targets, weights)
        if skew != 1e-30:  # its logarithm is, like the probabilities, beyond what a bound on quotients tells apart
            torch.testing.assert_close(found[0].double(), exact[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_teacher_that_is_no_number_is_not_hidden(name):
    hidden, head, teacher, targets = case(0, 4, 7, dtype=torch.float32)
    teacher.hidden[2, 1] = float("nan")
    value, _, _, by_hidden, _ = chunked(hidden, head, teacher, targets, LossWeights(0.9, 0.1, 1.0, name, 0.1))
    assert value.isnan()
    assert by_hidden[2].isnan().all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_gradients_agree_with_finite_differences(name, temperature):
    hidden, head, teacher, targets = case(3, 4, 6)
    weights = LossWeights(0.6, 0.4, temperature, name, 0.1)

    def loss(hidden, head):
        return chunked_distillation_loss(hidden, head, teacher, targets, weights)[0]

    assert torch.autograd.gradcheck(loss, (hidden.requires_grad_(), head.requires_grad_()))


class LargestTensor(TorchDispatchMode):
    """Notes the most elements that any result of an operation has."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.elements = max(self.elements, leaf.numel())
        return result


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_no_tensor_is_larger_than_the_logits_of_a_product(monkeypatch, name, temperature):
    monkeypatch.setattr(losses, "CHUNK_TOKENS", 4)
    monkeypatch.setattr(chunks, "PRODUCT_BYTES", 8 * 8)
    hidden, head, teacher, targets = case(0, 50, 40)
    with LargestTensor() as seen:
        chunked(hidden, head, teacher, targets, LossWeights(0.9, 0.1, temperature, name, 0.1))
    assert seen.elements <= max(8 * 40, hidden.numel(), teacher.hidden.numel(), head.numel(), teacher.head.numel())
