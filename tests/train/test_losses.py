"""One loss, one definition: the chunked one is the dense one."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from colbuild.train import losses
from colbuild.train.losses import LossWeights, TeacherView, chunked_distillation_loss, distillation_loss

VOCABULARY = 23


def case(tokens, *, seed=0, hidden=6, teacher_hidden=9, dtype=torch.float64, spread=3.0):
    """(student's hidden and head, teacher's view, targets); logits a few units apart."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*lengths):
        return (torch.randn(*lengths, generator=generator, dtype=torch.float64) * spread**0.5).to(dtype)

    teacher = TeacherView(draw(tokens, teacher_hidden), draw(VOCABULARY, teacher_hidden))
    targets = torch.randint(0, VOCABULARY, (tokens,), generator=generator)
    return draw(tokens, hidden), draw(VOCABULARY, hidden), teacher, targets


def with_gradients(loss_of, hidden, head):
    """(loss, KL, CE, gradient by hidden, gradient by head)."""
    hidden, head = hidden.clone().requires_grad_(), head.clone().requires_grad_()
    loss, kl, ce = loss_of(hidden, head)
    loss.backward()
    return loss.detach(), kl.detach(), ce.detach(), hidden.grad, head.grad


def dense(teacher, targets, weights):
    return lambda hidden, head: distillation_loss(hidden @ head.T, teacher.hidden @ teacher.head.T, targets, weights)


def chunked(teacher, targets, weights):
    return lambda hidden, head: chunked_distillation_loss(hidden, head, teacher, targets, weights)


@pytest.mark.parametrize("tokens", [1, 7, 8, 9, 16, 29])
@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.0, 1.0), (0.9, 0.1), (2.0, 3.0)], ids=str)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 4.0])
def test_chunked_loss_and_its_gradients_equal_the_definition(monkeypatch, tokens, weights, temperature):
    monkeypatch.setattr(losses, "CHUNK_TOKENS", 8)
    mixed = LossWeights(*weights, temperature)
    hidden, head, teacher, targets = case(tokens, seed=tokens)
    expected = with_gradients(dense(teacher, targets, mixed), hidden, head)
    found = with_gradients(chunked(teacher, targets, mixed), hidden, head)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_the_real_chunk_size_is_crossed_too():
    hidden, head, teacher, targets = case(2 * losses.CHUNK_TOKENS + 3)
    weights = LossWeights(0.9, 0.1, 2.0)
    expected = with_gradients(dense(teacher, targets, weights), hidden, head)
    found = with_gradients(chunked(teacher, targets, weights), hidden, head)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_definition_is_what_torch_says():
    hidden, head, teacher, targets = case(12)
    student, wise = hidden @ head.T, teacher.hidden @ teacher.head.T
    loss, kl, ce = distillation_loss(student, wise, targets, LossWeights(0.7, 0.3, 2.0))
    both = functional.log_softmax(student / 2, dim=-1), functional.log_softmax(wise / 2, dim=-1)
    divergence = functional.kl_div(*both, log_target=True, reduction="batchmean")
    torch.testing.assert_close(kl, 4 * divergence)
    torch.testing.assert_close(ce, functional.cross_entropy(student, targets))
    torch.testing.assert_close(loss, 0.7 * kl + 0.3 * ce)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_a_student_that_is_its_teacher_has_nothing_to_learn(temperature):
    hidden, head, _, targets = case(20)
    same = TeacherView(hidden.clone(), head.clone())
    loss, kl, _, by_hidden, by_head = with_gradients(
        chunked(same, targets, LossWeights(1.0, 0.0, temperature)), hidden, head
    )
    assert loss == 0.0
    assert kl == 0.0
    assert bool((by_hidden == 0.0).all())
    assert bool((by_head == 0.0).all())


def test_gradient_agrees_with_finite_differences():
    hidden, head, teacher, targets = case(5, hidden=3, spread=1.0)
    weights = LossWeights(0.6, 0.4, 1.5)

    def loss(hidden, head):
        return chunked_distillation_loss(hidden, head, teacher, targets, weights)[0]

    assert torch.autograd.gradcheck(loss, (hidden.requires_grad_(), head.requires_grad_()))


def test_gradients_scale_with_what_the_loss_is_multiplied_by():
    hidden, head, teacher, targets = case(9)
    weights = LossWeights(0.9, 0.1)
    whole = with_gradients(chunked(teacher, targets, weights), hidden, head)
    third = with_gradients(
        lambda *inputs: tuple(part / 3 for part in chunked(teacher, targets, weights)(*inputs)), hidden, head
    )
    torch.testing.assert_close(third[3], whole[3] / 3)
    torch.testing.assert_close(third[4], whole[4] / 3)


def test_a_share_of_a_batch_is_not_rounded_to_bf16():
    # A third is 0.333984 in bf16: the rows of a batch would weigh differently.
    hidden, head, teacher, targets = case(64, dtype=torch.bfloat16)
    by_hidden = []
    for share in (1.0, 1 / 3):
        leaf = hidden.clone().requires_grad_()
        (chunked_distillation_loss(leaf, head, teacher, targets, LossWeights(0.9, 0.1))[0] * share).backward()
        by_hidden.append(leaf.grad.double())
    ratio = (by_hidden[1] * by_hidden[0]).sum() / by_hidden[0].square().sum()
    assert abs(float(ratio) * 3 - 1) < 5e-4


def test_bf16_inputs_give_a_loss_near_the_exact_one_and_bf16_gradients():
    hidden, head, teacher, targets = case(40, dtype=torch.bfloat16, hidden=16)
    weights = LossWeights(0.9, 0.1, 1.0)
    loss, _, _, by_hidden, by_head = with_gradients(chunked(teacher, targets, weights), hidden, head)
    exact = TeacherView(teacher.hidden.double(), teacher.head.double())
    expected = with_gradients(dense(exact, targets, weights), hidden.double(), head.double())
    torch.testing.assert_close(loss.double(), expected[0], rtol=1e-2, atol=1e-2)
    assert by_hidden.dtype == by_head.dtype == torch.bfloat16
    for ours, theirs in ((by_hidden, expected[3]), (by_head, expected[4])):
        assert functional.cosine_similarity(ours.double().flatten(), theirs.flatten(), dim=0) > 0.999


def test_whole_logits_never_exist(monkeypatch):
    monkeypatch.setattr(losses, "CHUNK_TOKENS", 4)
    seen = []
    chunk = losses._chunk
    monkeypatch.setattr(losses, "_chunk", lambda student, *rest: seen.append(len(student)) or chunk(student, *rest))
    hidden, head, teacher, targets = case(10)
    with_gradients(chunked(teacher, targets, LossWeights(1.0, 1.0)), hidden, head)
    assert seen == [4, 4, 2]


def test_parts_beside_the_loss_carry_no_gradient():
    hidden, head, teacher, targets = case(5)
    loss, kl, ce = chunked_distillation_loss(hidden.requires_grad_(), head, teacher, targets, LossWeights(1.0, 1.0))
    assert loss.requires_grad
    assert not kl.requires_grad
    assert not ce.requires_grad
