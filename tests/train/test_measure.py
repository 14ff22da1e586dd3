"""Measuring: transformers' own loss, without its logits."""

from __future__ import annotations

import pytest
import torch

from colbuild.train import measure
from colbuild.train.measure import NOTHING, Score, mean_loss, score_window
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
    assert Score(2, 1.5, 1).plus(Score(3, 2.0, 3)) == Score(5, 3.5, 4)
    assert Score(2, 1.5, 1).plus(NOTHING) == Score(2, 1.5, 1)
