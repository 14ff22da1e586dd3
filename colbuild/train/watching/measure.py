"""A model's loss on text and its divergence from another model, without holding all logits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch.nn import functional
from transformers import PreTrainedModel

from colbuild.plan.workload.at_once import CHUNK_TOKENS
from colbuild.train.batch import IGNORED
from colbuild.train.losses.forward import final_hidden, head_weight
from colbuild.train.losses.logits_buffer import Room


@dataclass(frozen=True)
class Score:
    """Sums over predicted tokens.

    Attributes:
        tokens: How many were predicted.
        nats: Their negative log-likelihood.
        agreed: How often the likeliest token was the reference's likeliest too; equals `tokens` without a reference.
        kl: KL(reference || model) in nats; 0 without a reference.
    """

    tokens: int
    nats: float
    agreed: int
    kl: float = 0.0

    def plus(self, other: Score) -> Score:
        """Both together."""
        return Score(self.tokens + other.tokens, self.nats + other.nats, self.agreed + other.agreed, self.kl + other.kl)


NOTHING = Score(0, 0.0, 0)


@dataclass(frozen=True)
class HeldOut:
    """A model's loss on held-out text, in nats per token.

    Attributes:
        loss: Cross-entropy with the text.
        kl: KL(reference || model); None without a reference.
        windows: The cross-entropy of each window.
    """

    loss: float
    kl: float | None = None
    windows: tuple[float, ...] = ()


def go_on() -> None:
    """For measurements that nobody is going to stop."""


def held_out(
    model: PreTrainedModel,
    reference: PreTrainedModel | None,
    windows: torch.Tensor,
    between: Callable[[], None] = go_on,
    targets: torch.Tensor | None = None,
    room: Room | None = None,
) -> HeldOut:
    """Measures a model on text, also against another model on whatever device that is.

    Args:
        model: The model.
        reference: The other model, if there is one.
        windows: Token ids [windows, length + 1].
        between: Called before each window; its error ends the measurement.
        targets: What is asked [windows, length], `IGNORED` where nothing is; by default each token after the first.
        room: Memory for logits that may be used again.
    """
    scores = _each_window(model, reference, windows, between, targets, room)
    total = _sum(scores)
    each = tuple(score.nats / max(1, score.tokens) for score in scores)
    return HeldOut(total.nats / total.tokens, None if reference is None else total.kl / total.tokens, each)


def mean_loss(
    model: PreTrainedModel,
    windows: torch.Tensor,
    between: Callable[[], None] = go_on,
    targets: torch.Tensor | None = None,
    room: Room | None = None,
) -> float:
    """Mean loss in nats per token that is asked for, over windows as `held_out` takes them."""
    return held_out(model, None, windows, between, targets, room).loss


def score_windows(
    model: PreTrainedModel,
    windows: torch.Tensor,
    between: Callable[[], None] = go_on,
    targets: torch.Tensor | None = None,
    room: Room | None = None,
) -> Score:
    """The sums over windows as `held_out` takes them: those of other windows can be added."""
    return _sum(_each_window(model, None, windows, between, targets, room))


def _each_window(
    model: PreTrainedModel,
    reference: PreTrainedModel | None,
    windows: torch.Tensor,
    between: Callable[[], None],
    targets: torch.Tensor | None,
    room: Room | None,
) -> list[Score]:
    scores, room = [], room or Room()
    for window, wanted in zip(windows, windows[:, 1:] if targets is None else targets, strict=True):
        between()
        scores.append(score_window(model, window[None, :-1], wanted, reference, room))
    return scores


# Not `inference_mode`: what a model computes once and keeps, such as a mask, must be of use to a training too.
@torch.no_grad()
def score_window(
    model: PreTrainedModel,
    tokens: torch.Tensor,
    targets: torch.Tensor,
    reference: PreTrainedModel | None,
    room: Room | None = None,
) -> Score:
    """Scores the last `len(targets)` predictions on tokens [1, length]; the tokens before them are context only.

    A target that is `IGNORED` is left out. The tokens are brought to each model's device, and the reference's logits, a chunk
    at a time, to the model's.
    """
    wanted = None if bool((targets != IGNORED).all()) else torch.nonzero(targets != IGNORED).squeeze(1)
    ours = _view(model, tokens, len(targets), wanted)
    theirs = None if reference is None else _view(reference, tokens, len(targets), wanted)
    targets = (targets if wanted is None else targets[wanted]).to(ours.hidden.device)
    kept = room or Room()
    parts = (slice(start, start + CHUNK_TOKENS) for start in range(0, len(targets), CHUNK_TOKENS))
    return _sum(
        _score_chunk(ours.at(part), targets[part], None if theirs is None else theirs.at(part), kept) for part in parts
    )


@dataclass(frozen=True, eq=False)
class _View:
    """A model's final hidden states [tokens, hidden] and its head [vocabulary, hidden]."""

    hidden: torch.Tensor
    head: torch.Tensor

    def at(self, part: slice) -> _View:
        """The same of some tokens."""
        return _View(self.hidden[part], self.head)

    def logits(self, room: Room) -> torch.Tensor:
        """[tokens, vocabulary], in memory that those of other tokens or of another model had."""
        return room.product("narrow", self.hidden, self.head.T)


def _view(model: PreTrainedModel, tokens: torch.Tensor, count: int, wanted: torch.Tensor | None) -> _View:
    """What a model knows of the last `count` tokens, or of those `wanted` of them."""
    head = head_weight(model)
    hidden = final_hidden(model, tokens.to(head.device))[-count:]
    return _View(hidden if wanted is None else hidden[wanted.to(hidden.device)], head)


def _score_chunk(ours: _View, targets: torch.Tensor, theirs: _View | None, room: Room) -> Score:
    logits, count = ours.logits(room), targets.shape[0]
    likely = room.log_softmax("log student", room.cast("student", logits, torch.float32))
    nats = functional.nll_loss(likely, targets, reduction="none").double().sum()
    if theirs is None:
        return Score(count, float(nats), count)
    # Before the reference's logits take the place of these.
    likeliest = logits.argmax(dim=-1)
    reference = theirs.logits(room).to(likely.device)
    agreed = int((likeliest == reference.argmax(dim=-1)).sum())
    # The forward KL as `DIVERGENCES` defines it, in place: each tensor is a chunk's logits.
    log_reference = room.log_softmax("log teacher", room.cast("student", reference, torch.float32))
    expected = room.exp("student", log_reference)
    apart = expected.mul_(log_reference.sub_(likely)).sum(dim=-1)
    # No KL is negative; between models that hardly differ, rounding may say so.
    return Score(count, float(nats), agreed, float(apart.double().sum().clamp(min=0.0)))


def _sum(parts: Iterable[Score]) -> Score:
    total = NOTHING
    for part in parts:
        total = total.plus(part)
    return total
