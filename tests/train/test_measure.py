"""Measuring: transformers' own loss, without its logits."""

from __future__ import annotations

import math

import pytest
import torch

from colbuild.train.watching import measure
from colbuild.train.watching.measure import NOTHING, Score, held_out, mean_loss, score_window
from tests.train.helpers import text, tiny_llama


@pytest.mark.parametrize("tied", [True, False])
def test_mean_loss_is_transformers_own(tied):
    model, windows = tiny_llama(1, tied=tied), text(0, batch=6)
    with torch.no_grad():
        expected = model(input_ids=windows, labels=windows).loss.item()
    assert mean_loss(model, windows) == pytest.approx(expected, rel=1e-6)


def test_chunks_do_not_change_the_score(monkeypatch):
    model, reference, window = tiny_llama(1), tiny_llama(2), text(0, batch=1)
    whole = score_window(model, window[:, :-1], window[0, 1:], reference)
    monkeypatch.setattr(measure, "CHUNK_TOKENS", 5)
    parts = score_window(model, window[:, :-1], window[0, 1:], reference)
    assert (parts.tokens, parts.agreed) == (whole.tokens, whole.agreed)
    assert parts.nats == pytest.approx(whole.nats, rel=1e-6)
    assert parts.kl == pytest.approx(whole.kl, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_agrees_with_itself(dtype):
    model, window = tiny_llama(1, dtype=dtype), text(0, batch=1)
    score = score_window(model, window[:, :-1], window[0, 1:], model)
    assert score.agreed == score.tokens == 16


def test_agreement_counts_equal_likeliest_tokens():
    model, reference, window = tiny_llama(1), tiny_llama(2), text(0, batch=1)
    with torch.no_grad():
        ours, theirs = (each(input_ids=window[:, :-1]).logits.argmax(dim=-1) for each in (model, reference))
    expected = int((ours == theirs).sum())
    assert expected < 16
    assert score_window(model, window[:, :-1], window[0, 1:], reference).agreed == expected


def test_tokens_before_the_targets_are_context_only():
    model, window = tiny_llama(1), text(0, batch=1)
    score = score_window(model, window[:, :-1], window[0, -5:], None)
    with torch.no_grad():
        logits = model(input_ids=window[:, :-1]).logits[0, -5:]
    expected = torch.nn.functional.cross_entropy(logits, window[0, -5:], reduction="sum").item()
    assert score.tokens == score.agreed == 5
    assert score.nats == pytest.approx(expected, rel=1e-6)


def test_scores_add_up():
    assert Score(2, 1.5, 1, 0.5).plus(Score(3, 2.0, 3, 0.25)) == Score(5, 3.5, 4, 0.75)
    assert Score(2, 1.5, 1).plus(NOTHING) == Score(2, 1.5, 1)


# -- divergence -------------------------------------------------------------------------------------------------------


def dense_kl(reference, model, windows):
    """KL(reference || model) per token, from whole logits in float64."""
    with torch.no_grad():
        p, q = (each(input_ids=windows[:, :-1]).logits.double().log_softmax(-1) for each in (reference, model))
    return (p.exp() * (p - q)).sum(-1).mean().item()


def test_divergence_is_that_of_whole_logits(monkeypatch):
    monkeypatch.setattr(measure, "CHUNK_TOKENS", 5)
    model, reference, windows = tiny_llama(1), tiny_llama(2, hidden=48), text(0, batch=3)
    found = held_out(model, reference, windows)
    assert found.kl == pytest.approx(dense_kl(reference, model, windows), rel=1e-5)
    assert found.kl != pytest.approx(dense_kl(model, reference, windows), rel=1e-2)
    assert found.loss == mean_loss(model, windows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_diverges_from_itself_by_exactly_nothing(dtype):
    model = tiny_llama(1, dtype=dtype)
    assert held_out(model, model, text(0)).kl == 0.0


def test_without_a_reference_there_is_no_divergence():
    assert held_out(tiny_llama(1), None, text(0)).kl is None


def test_a_reference_that_computes_no_numbers_is_not_taken_for_a_close_one():
    reference = tiny_llama(2)
    with torch.no_grad():
        reference.model.norm.weight.fill_(float("nan"))
    assert math.isnan(held_out(tiny_llama(1), reference, text(0)).kl)


def test_logits_exist_a_chunk_at_a_time(monkeypatch):
    monkeypatch.setattr(measure, "CHUNK_TOKENS", 4)
    seen = []
    chunk = measure._score_chunk
    monkeypatch.setattr(
        measure, "_score_chunk", lambda ours, *rest: (seen.append(ours.hidden.shape[0]), chunk(ours, *rest))[1]
    )
    held_out(tiny_llama(1), tiny_llama(2), text(0, batch=2))
    assert seen == [4] * 8


def test_what_measuring_computed_can_be_trained_on_afterwards():
    model, windows = tiny_llama(1), text(0)
    held_out(model, tiny_llama(2), windows)
    model(input_ids=windows, labels=windows).loss.backward()
