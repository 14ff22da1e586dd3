"""What a package is worth on held-out text beside the PyTorch model it was made from."""

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
from colbuild.export.parity import CHUNK_ROWS, log_sum_exp, logits_of, rounded
from colbuild.export.session import Decoder, Logits, feed_text
from colbuild.progress import Progress, Report


@dataclass(frozen=True, eq=False)
class Answers:
    """What a model says on a window of text: the nats of each token that came, and the token that it found likeliest."""

    nats: numpy.typing.NDArray[numpy.float64]
    likeliest: numpy.typing.NDArray[numpy.int64]


def model_answers(model: PreTrainedModel, windows: torch.Tensor, report: Report) -> list[Answers]:
    """The PyTorch model's on windows [windows, length + 1]."""
    found = []
    for done, window in enumerate(windows):
        report(Progress(done, len(windows), "windows", "reading held-out text"))
        found.append(_answers([logits_of(model, window[None, :-1])], window))
    return found


def measure_quality(decoder: Decoder, windows: torch.Tensor, reference: Sequence[Answers], report: Report) -> Quality:
    """A package's, against what `model_answers` found on the same windows.

    Raises:
        BuildError: Its logits are not finite.
    """
    ours = []
    for done, window in enumerate(windows):
        report(Progress(done, len(windows), "windows", "reading held-out text"))
        ours.append(_answers(_finite(feed_text(decoder, window[:-1].tolist())), window))
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
            raise BuildError("the package gives logits that are not finite (nan or inf) on held-out text")
        yield logits


def _answers(pieces: Iterable[Logits], window: torch.Tensor) -> Answers:
    targets, nats, likeliest = window[1:].numpy(), [], []
    for logits in pieces:
        for start in range(0, len(logits), CHUNK_ROWS):
            rows = logits[start : start + CHUNK_ROWS].astype(numpy.float64)
            chosen, targets = targets[: len(rows)], targets[len(rows) :]
            nats.append(log_sum_exp(rows)[:, 0] - rows[numpy.arange(len(rows)), chosen])
            likeliest.append(rows.argmax(axis=1))
    return Answers(numpy.concatenate(nats), numpy.concatenate(likeliest))
