"""How well a model predicts text, and how often it agrees with another, without ever holding all logits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch.nn import functional
from transformers import PreTrainedModel

from colbuild.train.forward import CHUNK_TOKENS, final_hidden, head_weight


@dataclass(frozen=True)
class Score:
    """Sums over predicted tokens.

    Attributes:
        tokens: How many were predicted.
        nats: Their negative log-likelihood.
        agreed: How often the likeliest token was the reference's likeliest too; equals `tokens` without a reference.
    """

    tokens: int
    nats: float
    agreed: int

    def plus(self, other: Score) -> Score:
        """Both together."""
        return Score(self.tokens + other.tokens, self.nats + other.nats, self.agreed + other.agreed)


NOTHING = Score(0, 0.0, 0)


def mean_loss(model: PreTrainedModel, windows: torch.Tensor) -> float:
    """Mean loss in nats per token over windows [windows, length + 1]."""
    total = NOTHING
    for window in windows:
        total = total.plus(score_window(model, window[None, :-1], window[1:], None))
    return total.nats / total.tokens


def score_window(
    model: PreTrainedModel, tokens: torch.Tensor, targets: torch.Tensor, reference: PreTrainedModel | None
) -> Score:
    """Scores the last `len(targets)` predictions on tokens [1, length]; the tokens before them are context only."""
    count = targets.shape[0]
    with torch.inference_mode():
        hidden = final_hidden(model, tokens)[-count:]
        head = head_weight(model)
        theirs = None if reference is None else final_hidden(reference, tokens)[-count:]
        parts = (
            _score_chunk(
                hidden[start : start + CHUNK_TOKENS] @ head.T,
                targets[start : start + CHUNK_TOKENS],
                None
                if theirs is None or reference is None
                else theirs[start : start + CHUNK_TOKENS] @ head_weight(reference).T,
            )
            for start in range(0, count, CHUNK_TOKENS)
        )
        return _sum(parts)


def _score_chunk(logits: torch.Tensor, targets: torch.Tensor, reference: torch.Tensor | None) -> Score:
    nats = functional.cross_entropy(logits.float(), targets, reduction="none").double().sum()
    count = targets.shape[0]
    agreed = count if reference is None else int((logits.argmax(dim=-1) == reference.argmax(dim=-1)).sum())
    return Score(count, float(nats), agreed)


def _sum(parts: Iterable[Score]) -> Score:
    total = NOTHING
    for part in parts:
        total = total.plus(part)
    return total
