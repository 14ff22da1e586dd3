"""Compares a package's perplexity on held-out text with the PyTorch model's."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy
import numpy.typing
import torch
from transformers import PreTrainedModel

from colbuild.errors import BuildError
from colbuild.export.manifest import Quality
from colbuild.export.package.parity import CHUNK_ROWS, log_sum_exp, logits_of, rounded
from colbuild.export.runtime.session import Decoder, Logits, feed_text
from colbuild.progress import Progress, Report
from colbuild.train.batch import IGNORED


@dataclass(frozen=True, eq=False)
class Answers:
    """A model's predictions on a window: the nats of each next token, and the most likely token."""

    nats: numpy.typing.NDArray[numpy.float64]
    likeliest: numpy.typing.NDArray[numpy.int64]


@dataclass(frozen=True, eq=False)
class HeldOutText:
    """Text that a package is measured on.

    Attributes:
        windows: Token ids [windows, length + 1].
        targets: What is asked [windows, length], `IGNORED` where nothing is.
    """

    windows: torch.Tensor
    targets: torch.Tensor

    def within(self, context: int) -> HeldOutText:
        """The same in windows of at most `context` tokens."""
        return HeldOutText(self.windows[:, : context + 1], self.targets[:, :context])


def model_answers(model: PreTrainedModel, text: HeldOutText, report: Report) -> list[Answers]:
    """The PyTorch model's."""
    found = []
    for done, (window, targets) in enumerate(zip(text.windows, text.targets, strict=True)):
        report(Progress(done, len(text.windows), "windows", "reading held-out text"))
        found.append(_answers([logits_of(model, window[None, :-1])], targets))
    return found


def measure_quality(decoder: Decoder, text: HeldOutText, reference: Sequence[Answers], report: Report) -> Quality:
    """A package's, against what `model_answers` found on the same text.

    Raises:
        BuildError: Its logits are not finite.
    """
    ours = []
    for done, (window, targets) in enumerate(zip(text.windows, text.targets, strict=True)):
        report(Progress(done, len(text.windows), "windows", "reading held-out text"))
        ours.append(_answers(_finite(feed_text(decoder, window[:-1].tolist())), targets))
    mine, theirs = (numpy.concatenate([one.nats for one in every]) for every in (ours, reference))
    agreed = numpy.concatenate([one.likeliest == other.likeliest for one, other in zip(ours, reference, strict=True)])
    return Quality(
        tokens=len(mine),
        perplexity=rounded(math.exp(mine.mean()), 5),
        reference=rounded(math.exp(theirs.mean()), 5),
        increase=rounded(math.exp(mine.mean() - theirs.mean()) - 1.0),
        top1_agreement=rounded(float(agreed.mean())),
    )


def _finite(pieces: Iterable[Logits]) -> Iterator[Logits]:
    for logits in pieces:
        if not numpy.isfinite(logits).all():
            raise BuildError("the package gives NaN or infinite logits on held-out text")
        yield logits


def _answers(pieces: Iterable[Logits], wanted: torch.Tensor) -> Answers:
    targets, nats, likeliest = wanted.numpy(), [], []
    for logits in pieces:
        for start in range(0, len(logits), CHUNK_ROWS):
            chosen, targets = targets[:CHUNK_ROWS], targets[CHUNK_ROWS:]
            asked = chosen != IGNORED
            rows = logits[start : start + CHUNK_ROWS][asked].astype(numpy.float64)
            chosen = chosen[asked]
            nats.append(log_sum_exp(rows)[:, 0] - rows[numpy.arange(len(rows)), chosen])
            likeliest.append(rows.argmax(axis=1))
    return Answers(numpy.concatenate(nats), numpy.concatenate(likeliest))
