"""Losses across two vocabularies: with one they are the plain ones, and gradients are those of their definitions."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from colbuild.train.across import across_losses as across
from colbuild.train.across.across_losses import CHUNK_TEMPERATURE, NEXT, AcrossView, across_loss, chunk_divergence
from colbuild.train.across.aligned_text import cross
from colbuild.train.across.vocabularies import Projection, events, first_tokens, nearest_tokens
from colbuild.train.batch import IGNORED
from colbuild.train.losses import losses
from colbuild.train.losses.losses import LossWeights, TeacherView, chunked_distillation_loss
from tests.helpers.tiny import tiny_documents
from tests.train.test_crossing import COARSE, FALLBACK, FINE, packed

WEIGHTS = LossWeights(0.9, 0.1)


def sizes(student, teacher):
    return len(student.spelling.spelled), len(teacher.spelling.spelled)


def projected(student, teacher, make=events):
    return make(student.spelling, teacher.spelling, sizes(student, teacher), (student.separator, teacher.separator))


def case(student, teacher, loss="alm", *, seed=0, apart=False):
    """(student's hidden, its head, what the teacher knows, targets) of some text, in float64."""
    generator = torch.Generator().manual_seed(seed)
    batch = packed(tiny_documents(3, seed), student, 24, apart=apart)
    found = cross(batch, student, teacher, 10_000)
    ours, theirs = sizes(student, teacher)

    def draw(*lengths):
        return torch.randn(*lengths, generator=generator, dtype=torch.float64)

    projection = projected(student, teacher, nearest_tokens if loss == "mined" else events)
    view = AcrossView(draw(found.tokens.numel(), 9), draw(theirs, 9), found, projection, loss)
    return draw(batch.tokens.numel(), 6), draw(ours, 6), view, batch.targets.flatten()


def with_gradients(loss, hidden, head):
    hidden, head = hidden.clone().requires_grad_(), head.clone().requires_grad_()
    every = loss(hidden, head)
    every[0].backward()
    return [value.detach() for value in every], hidden.grad, head.grad


def dense(view, targets, weights):
    """The definition, over whole logits, left to autograd."""

    def loss(hidden, head):
        asked = torch.nonzero(targets != IGNORED).squeeze(1)
        log_student = functional.log_softmax(hidden @ head.T, dim=-1)
        ce = functional.nll_loss(log_student[asked], targets[asked], reduction="sum")
        apart = torch.zeros((), dtype=hidden.dtype)
        crossing = view.crossing
        log_teacher = functional.log_softmax(view.hidden @ view.head.T, dim=-1)
        following = crossing.targets.flatten()
        for ours, theirs, (mine, other) in zip(
            crossing.student.tolist(), crossing.teacher.tolist(), crossing.chunks.tolist(), strict=True
        ):
            if targets[ours] == IGNORED:
                continue
            apart = apart + NEXT[view.loss](log_student[ours][None], log_teacher[theirs][None], view.projection).sum()
            told = mine == other == 1 and view.projection.told[targets[ours]]
            chunk = targets[ours : ours + mine]
            if view.loss != "alm" or told or mine == 0 or other == 0 or (chunk == IGNORED).any():
                continue
            likely = log_student[range(ours, ours + mine), chunk].sum()
            wanted = log_teacher[range(theirs, theirs + other), following[theirs : theirs + other]].sum()
            apart = apart + chunk_divergence(likely, wanted, CHUNK_TEMPERATURE)
        return (weights.kd * apart + weights.ce * ce) / len(asked), apart / len(asked), ce / len(asked)

    return loss


@pytest.mark.parametrize("loss", NEXT)
@pytest.mark.parametrize("pair", [(FINE, COARSE), (COARSE, FALLBACK), (COARSE, COARSE)])
def test_value_and_gradient_are_those_of_the_definition(pair, loss, monkeypatch):
    for module in (across, losses):
        monkeypatch.setattr(module, "CHUNK_TOKENS", 7)
    hidden, head, view, targets = case(*pair, loss)
    found = with_gradients(lambda *of: across_loss(*of, view, targets, WEIGHTS), hidden, head)
    wanted = with_gradients(dense(view, targets, WEIGHTS), hidden, head)
    for one, other in zip(found[0], wanted[0], strict=True):
        assert torch.allclose(one, other, rtol=1e-5)
    assert found[0][1] > 0.001
    for one, other in zip(found[1:], wanted[1:], strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("apart", [False, True])
def test_with_one_vocabulary_alm_is_plain_distillation(apart):
    hidden, head, view, targets = case(COARSE, COARSE, apart=apart)
    assert view.projection.told.all()
    found = with_gradients(lambda *of: across_loss(*of, view, targets, WEIGHTS), hidden, head)
    plain = TeacherView(view.hidden, view.head)
    wanted = with_gradients(lambda *of: chunked_distillation_loss(*of, plain, targets, WEIGHTS), hidden, head)
    for one, other in zip([*found[0], *found[1:]], [*wanted[0], *wanted[1:]], strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("loss", NEXT)
def test_a_student_that_is_its_teacher_is_told_nothing(loss):
    hidden, head, view, targets = case(COARSE, COARSE, loss)
    same = replace(view, hidden=hidden, head=head)
    (_, apart, _), *gradients = with_gradients(
        lambda *of: across_loss(*of, same, targets, LossWeights(1.0, 0.0)), hidden, head
    )
    assert abs(apart) < 1e-12
    assert all(gradient.abs().max() < 1e-9 for gradient in gradients)


def test_without_a_teacher_only_the_text_counts():
    hidden, head, view, targets = case(FINE, COARSE)
    found, apart, entropy = across_loss(hidden, head, None, targets, WEIGHTS)
    assert apart == 0
    assert torch.allclose(found, 0.1 * entropy)
    assert torch.allclose(entropy, functional.cross_entropy(hidden @ head.T, targets, ignore_index=IGNORED))
    del view


def test_a_chunk_as_likely_as_the_teacher_finds_it_is_at_rest():
    log = torch.tensor([-0.1, -3.0, -40.0], dtype=torch.float64)
    assert chunk_divergence(log, log, 10.0).abs().max() < 1e-12
    less = (log - 1.0).requires_grad_()
    chunk_divergence(less, log, 10.0).sum().backward()
    assert (less.grad < 0).all()  # it wants them likelier


# -- which token stands for which -------------------------------------------------------------------------------------


def test_a_token_stands_for_the_longest_that_it_begins_with():
    found = first_tokens(COARSE.spelling, FINE.spelling, len(COARSE.spelling.spelled))
    for index, token in enumerate(COARSE.spelling.spelled):
        if token:
            first = FINE.spelling.spelled[found[index]]
            assert token.startswith(first)
            assert not any(len(other) > len(first) and token.startswith(other) for other in FINE.spelling.by_bytes)
    assert found[COARSE.separator] == FINE.separator


def test_a_token_is_told_apart_unless_the_teacher_writes_others_with_it():
    projection = projected(COARSE, FINE)
    spelled, by_bytes = COARSE.spelling.spelled, FINE.spelling.by_bytes
    ambiguous = {FINE.spelling.prefix(token) for token in spelled if token and token not in by_bytes}
    for index, token in enumerate(spelled):
        if token:
            assert bool(projection.told[index]) == (token in by_bytes and by_bytes[token] not in ambiguous)
    assert 0.2 < projection.told.float().mean() < 0.9
    # All that the teacher's tokens stand for is told, or nothing.
    into = projection.to[projection.to < len(spelled)]
    assert projection.told[into].all()


def test_rows_beyond_a_tokenizer_stand_for_nothing():
    wide = events(COARSE.spelling, COARSE.spelling, (700, 800), (COARSE.separator,) * 2)
    count = len(COARSE.spelling.spelled)
    assert not wide.told[count:].any()
    assert (wide.to[count:] == 700).all()


def test_probability_is_never_lost():
    view = case(COARSE, FALLBACK)[2]
    likely = across._projected(functional.log_softmax(view.hidden @ view.head.T, dim=-1), view.projection)
    assert torch.allclose(likely.sum(dim=1), torch.ones(len(likely), dtype=torch.float64))


def test_the_nearest_token_is_of_the_smallest_edit_distance():
    found = nearest_tokens(FINE.spelling, COARSE.spelling, sizes(FINE, COARSE), (FINE.separator, COARSE.separator))
    index = next(at for at, token in enumerate(COARSE.spelling.spelled) if token == b" repairs")
    assert FINE.spelling.spelled[found.to[index]].startswith(b" r")
    assert found.told.all()
    assert isinstance(found, Projection)
