"""One loss, one definition: the chunked one is the dense one."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from colbuild.errors import BuildError
from colbuild.train.batch import IGNORED
from colbuild.train.losses import chunks, losses
from colbuild.train.losses.divergences import DIVERGENCES, coarsened
from colbuild.train.losses.losses import (
    LossWeights,
    TeacherSamples,
    TeacherTop,
    TeacherView,
    chunked_distillation_loss,
)
from tests.train.dense_loss import distillation_loss

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
    known = teacher.hidden @ teacher.head.T if isinstance(teacher, TeacherView) else teacher
    return lambda hidden, head: distillation_loss(hidden @ head.T, known, targets, weights)


def chunked(teacher, targets, weights):
    return lambda hidden, head: chunked_distillation_loss(hidden, head, teacher, targets, weights)


@pytest.mark.parametrize("tokens", [1, 7, 8, 9, 16, 29])
@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.0, 1.0), (0.9, 0.1), (2.0, 3.0)], ids=str)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 4.0])
def test_chunked_loss_and_its_gradients_equal_the_definition(monkeypatch, tokens, weights, temperature):
    monkeypatch.setattr(losses, "CHUNK_TOKENS", 8)
    monkeypatch.setattr(chunks, "PRODUCT_BYTES", 16 * 8)
    mixed = LossWeights(*weights, temperature)
    hidden, head, teacher, targets = case(tokens, seed=tokens)
    expected = with_gradients(dense(teacher, targets, mixed), hidden, head)
    found = with_gradients(chunked(teacher, targets, mixed), hidden, head)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def some_ignored(targets, share, *, seed=0):
    """The targets, about a share of them ignored."""
    draws = torch.rand(targets.shape, generator=torch.Generator().manual_seed(seed))
    return targets.masked_fill(draws < share, IGNORED)


@pytest.mark.parametrize("divergence", sorted(DIVERGENCES))
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_ignored_tokens_count_neither_in_values_nor_in_gradients(monkeypatch, divergence, share, temperature):
    monkeypatch.setattr(losses, "CHUNK_TOKENS", 8)
    monkeypatch.setattr(chunks, "PRODUCT_BYTES", 16 * 8)
    weights = LossWeights(0.9, 0.1, temperature, divergence, 0.1)
    hidden, head, teacher, targets = case(43)
    targets = some_ignored(targets, share)
    asked = targets != IGNORED
    few = TeacherView(teacher.hidden[asked], teacher.head)
    without = with_gradients(dense(few, targets[asked], weights), hidden[asked], head)
    for loss in (dense, chunked):
        found = with_gradients(loss(teacher, targets, weights), hidden, head)
        for ours, theirs in zip((*found[:3], found[3][asked], found[4]), without, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-12)
        assert not found[3][~asked].any()


@pytest.mark.parametrize("loss", [dense, chunked])
def test_a_batch_of_ignored_tokens_has_no_loss_and_no_gradient(loss):
    hidden, head, teacher, targets = case(9)
    found = with_gradients(loss(teacher, torch.full_like(targets, IGNORED), LossWeights(0.9, 0.1, 2.0)), hidden, head)
    assert all(not part.any() for part in found)


def test_what_is_no_number_at_an_ignored_token_stays_there():
    hidden, head, teacher, targets = case(20)
    targets[3] = IGNORED
    teacher.hidden[3] = float("nan")
    found = with_gradients(chunked(teacher, targets, LossWeights(0.9, 0.1)), hidden, head)
    assert all(bool(part.isfinite().all()) for part in found)


def test_the_real_chunk_size_is_crossed_too():
    hidden, head, teacher, targets = case(chunks.PRODUCT_BYTES // 8 + losses.CHUNK_TOKENS + 3)
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
    targets[7] = IGNORED
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
    monkeypatch.setattr(chunks, "PRODUCT_BYTES", 8 * 8)
    seen = []
    chunk = losses._chunk
    for name in ("_chunk", "_compiled_chunk"):
        monkeypatch.setattr(losses, name, lambda student, *rest: seen.append(len(student)) or chunk(student, *rest))
    hidden, head, teacher, targets = case(10)
    with_gradients(chunked(teacher, targets, LossWeights(1.0, 1.0)), hidden, head)
    assert seen == [4, 4, 2]


def test_parts_beside_the_loss_carry_no_gradient():
    hidden, head, teacher, targets = case(5)
    loss, kl, ce = chunked_distillation_loss(hidden.requires_grad_(), head, teacher, targets, LossWeights(1.0, 1.0))
    assert loss.requires_grad
    assert not kl.requires_grad
    assert not ce.requires_grad


def likely(teacher, temperature):
    """The logarithms of a teacher's probabilities."""
    return functional.log_softmax(teacher.hidden @ teacher.head.T / temperature, dim=-1)


def drawn(teacher, temperature=1.0, *, k=5, seed=0):
    """Independent draws from a teacher's distribution."""
    probabilities = likely(teacher, temperature).exp()
    ids = torch.multinomial(probabilities, k, replacement=True, generator=torch.Generator().manual_seed(seed))
    entropy = -(probabilities * probabilities.log()).sum(dim=-1)
    return TeacherSamples(ids, torch.full(ids.shape, 1 / k, dtype=entropy.dtype), entropy)


def top(teacher, temperature=1.0, *, k=5):
    """A teacher's likeliest tokens."""
    of_teacher = likely(teacher, temperature)
    ids = of_teacher.topk(k, dim=-1).indices
    return TeacherTop(ids, coarsened(of_teacher, ids))


@pytest.mark.parametrize("kept", [drawn, top])
@pytest.mark.parametrize("tokens", [1, 8, 29])
@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.9, 0.1)], ids=str)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_what_was_kept_of_a_teacher_gives_the_dense_loss_and_its_gradients(
    monkeypatch, kept, tokens, weights, temperature
):
    monkeypatch.setattr(losses, "CHUNK_TOKENS", 8)
    monkeypatch.setattr(chunks, "PRODUCT_BYTES", 16 * 8)
    hidden, head, teacher, targets = case(tokens, seed=tokens)
    targets, lessons = some_ignored(targets, 0.2, seed=tokens), kept(teacher, temperature)
    mixed = LossWeights(*weights, temperature)
    expected = with_gradients(dense(lessons, targets, mixed), hidden, head)
    found = with_gradients(chunked(lessons, targets, mixed), hidden, head)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_each_token_drawn_at_its_probability_is_the_whole_teacher(temperature):
    # Value and gradient are linear in the weights, so this is also what draws give on average.
    hidden, head, teacher, targets = case(20)
    weights = LossWeights(0.9, 0.1, temperature)
    probabilities = likely(teacher, temperature).exp()
    ids = torch.arange(VOCABULARY).expand(20, -1)
    every = TeacherSamples(ids, probabilities, -(probabilities * probabilities.log()).sum(dim=-1))
    whole = with_gradients(chunked(teacher, targets, weights), hidden, head)
    found = with_gradients(chunked(every, targets, weights), hidden, head)
    for ours, theirs in zip(found, whole, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_the_more_tokens_are_kept_the_nearer_the_coarse_divergence_is_to_the_whole():
    hidden, head, teacher, targets = case(20)
    weights = LossWeights(1.0, 0.0)
    whole = chunked(teacher, targets, weights)(hidden, head)[1]
    found = [chunked(top(teacher, k=k), targets, weights)(hidden, head)[1] for k in (1, 3, 9, VOCABULARY - 1)]
    assert found == sorted(found)
    assert found[0] > 0
    torch.testing.assert_close(found[-1], whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_a_student_whose_likeliest_tokens_are_its_teachers_has_nothing_to_learn(temperature, dtype):
    hidden, head, _, targets = case(20, dtype=dtype)
    log_likely = functional.log_softmax((hidden @ head.T).float() / temperature, dim=-1)
    ids = log_likely.topk(5, dim=-1).indices
    same = TeacherTop(ids, coarsened(log_likely, ids))
    loss, kl, _, by_hidden, by_head = with_gradients(
        chunked(same, targets, LossWeights(1.0, 0.0, temperature)), hidden, head
    )
    assert loss == kl == 0.0
    assert not by_hidden.any()
    assert not by_head.any()


@pytest.mark.parametrize("scale", [4.0, 64.0, 8192.0], ids=str)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_likeliest_tokens_that_the_student_all_but_rules_out_give_finite_losses_and_gradients(scale, temperature):
    hidden, head, teacher = (torch.eye(4) * scale for _ in range(3))
    targets = torch.tensor([3, 2, 1, 0])
    weights = LossWeights(0.9, 0.1, temperature)
    for k in (1, 2):
        exact = top(TeacherView(teacher.double(), teacher.double().roll(1, dims=0)), temperature, k=k)
        found = with_gradients(chunked(TeacherTop(exact.ids, exact.log_likely.float()), targets, weights), hidden, head)
        expected = with_gradients(dense(exact, targets, weights), hidden.double(), head.double())
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-4 * scale)


@pytest.mark.parametrize("kept", [drawn, top])
@pytest.mark.parametrize("divergence", sorted(set(DIVERGENCES) - {"forward_kl"}))
def test_losses_that_need_the_whole_teacher_refuse_a_part_of_it(kept, divergence):
    hidden, head, teacher, targets = case(3)
    with pytest.raises(BuildError, match=f"{divergence} needs the teacher's whole distribution"):
        chunked_distillation_loss(hidden, head, kept(teacher), targets, LossWeights(1.0, 0.0, 1.0, divergence))


@pytest.mark.slow
@pytest.mark.parametrize("kept", [None, drawn, top])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_a_compiled_chunk_is_the_eager_one_in_one_piece(kept, temperature):
    torch.compiler.reset()
    hidden, head, teacher, targets = case(40, dtype=torch.float32)
    known = teacher.hidden @ teacher.head.T if kept is None else kept(teacher, temperature)
    weights = LossWeights(0.9, 0.1, temperature)
    with torch.no_grad():
        expected = losses._chunk(hidden @ head.T, known, targets, weights)
        found = torch.compile(losses._chunk, fullgraph=True)(hidden @ head.T, known, targets, weights)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("divergence", sorted(DIVERGENCES))
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_compiled_too_a_student_that_is_its_teacher_has_nothing_to_learn(divergence, temperature):
    torch.compiler.reset()
    logits = torch.randn(40, 301, generator=torch.Generator().manual_seed(0)) * 5
    weights = LossWeights(1.0, 0.0, temperature, divergence, 0.1)
    with torch.no_grad():
        chunk = torch.compile(losses._chunk, fullgraph=True)
        apart, _, gradient = chunk(logits, logits.clone(), torch.zeros(40, dtype=torch.int64), weights)
    assert apart == 0.0
    assert not gradient.any()
