"""On-policy steps: a share of the sequences is text that the student has written (GKD, arXiv 2306.13649).

::

    step       0   1   2   3 | 4   5   6   7 | 8        every: 4
    writing    ^               ^               ^        all texts of a period, with the weights that it begins with
    sequence   c w w c w c c w ...                      c: of the corpus, w: written by the student

Which sequences are written follows from the seed and the period alone, and a text from these and the student's weights. The
texts of the present period are part of a training's state, so its checkpoints hold them: what resumes reads the same texts.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import floor
from typing import Protocol

import torch
from accelerate import Accelerator

from colbuild.spec.model.recipe import Recipe
from colbuild.train.batch import IGNORED, Batch
from colbuild.train.loop.student import Pass


@dataclass(frozen=True, eq=False)
class Texts:
    """The texts that a student has written for a period.

    Attributes:
        period: Which one, from 0.
        tokens: Token ids [texts, sequence + 1], in the order of their places.
        drawn: [texts, sequence + 1], true where the student chose the token.
    """

    period: int
    tokens: torch.Tensor
    drawn: torch.Tensor


Beat = Callable[[int], None]
"""Tokens of each text that are written so far -> nothing; its error ends the writing."""


class Writer(Protocol):
    """The way from places in the order of training to texts."""

    def write(self, places: Sequence[int], beat: Beat) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns tokens and drawn [texts, sequence + 1] for sequences, numbered over the whole training."""

    def batch(self, rows: torch.Tensor, windows: tuple[int, ...]) -> Batch:
        """Returns texts [texts, sequence + 1] as a batch is made of the corpus."""


class OnPolicy:
    """The written part of each step's batch."""

    def __init__(self, recipe: Recipe, steps: int, writer: Writer) -> None:
        """Prepares the texts of a training by a recipe that has `on_policy`."""
        assert recipe.on_policy is not None
        self._asked = recipe.on_policy
        self._seed = recipe.seed
        self._rows = recipe.batch
        self._steps = steps
        self._writer = writer

    def places(self, period: int) -> tuple[int, ...]:
        """Returns the sequences of a period that the student writes, numbered over the whole training.

        After any number of periods they are within one of their share, and each step has its share of them, rounded up or
        down. Which steps and rows these are is drawn at random, so that they spread over the passes of an elastic student,
        which are in a fixed order.
        """
        chance = random.Random(f"{self._seed}:written:{period}")  # noqa: S311
        first, each = period * self._asked.every, self._rows * self._asked.share
        counts = [floor((step + 1) * each) - floor(step * each) for step in range(first, first + self._asked.every)]
        chance.shuffle(counts)
        found = []
        for step, count in enumerate(counts, first):
            rows = sorted(chance.sample(range(self._rows), count))
            found += [step * self._rows + row for row in rows if step < self._steps]
        return tuple(found)

    def texts(
        self, step: int, before: Texts | None, accelerator: Accelerator, beat: Callable[[int, int], None]
    ) -> Texts:
        """Returns the texts for a step: those of before, or new ones at the beginning of a period.

        Each of several processes writes its part of them.

        Args:
            step: The step.
            before: What was written last.
            accelerator: The processes.
            beat: (number of texts, tokens of each so far) -> nothing.
        """
        period = step // self._asked.every
        if before is not None and before.period == period:
            return before
        places, alone = self.places(period), accelerator.num_processes == 1
        mine = slice(accelerator.process_index, None, accelerator.num_processes)
        tokens, drawn = self._writer.write(places[mine], lambda done: beat(len(places), done))
        if not alone:
            together = torch.zeros(2, len(places), tokens.shape[1], dtype=torch.int64)
            together[:, mine] = torch.stack([tokens, drawn.long()])
            summed = accelerator.reduce(together.to(accelerator.device), "sum").cpu()
            tokens, drawn = summed[0], summed[1].bool()
        return Texts(period, tokens, drawn)

    def batch(self, step: int, corpus: Batch, texts: Texts, passes: tuple[Pass, ...]) -> Batch:
        """Returns a step's batch: the corpus's, with the student's texts in their places.

        Within each pass the rows of the corpus come first, so that few micro-batches have to be cut for the others. A text
        in which the student chose no token gives way to the corpus.
        """
        first = step * self._rows
        told = texts.drawn[:, 1:].any(dim=1).tolist()
        found = {place - first: text for text, place in enumerate(self.places(texts.period)) if told[text]}
        chosen = {row: text for row, text in found.items() if 0 <= row < len(corpus.windows)}
        if not chosen:
            return corpus
        rows, which = list(chosen), list(chosen.values())
        own = self._writer.batch(texts.tokens[which], tuple(corpus.windows[row] for row in rows))
        order = [row for way in passes for row in sorted(range(way.start, way.stop), key=chosen.__contains__)]

        def mixed(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
            return theirs.index_copy(0, torch.tensor(rows), ours)[order]

        return Batch(
            mixed(own.tokens, corpus.tokens),
            mixed(own.targets.masked_fill(~texts.drawn[which, 1:], IGNORED), corpus.targets),
            tuple(corpus.windows[row] for row in order),
            None if own.documents is None or corpus.documents is None else mixed(own.documents, corpus.documents),
            tuple(row in chosen for row in order),
        )


def written_length(batch: Batch) -> float:
    """Returns the mean number of tokens of what the student wrote in one go, up to an end or the sequence's; 0 without any."""
    drawn = (batch.targets != IGNORED)[list(batch.written)] if batch.written else torch.zeros(0, 1, dtype=torch.bool)
    begun = drawn.clone()
    begun[:, 1:] &= ~drawn[:, :-1]
    return float(drawn.sum() / begun.sum()) if bool(begun.any()) else 0.0
