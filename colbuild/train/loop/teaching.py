"""A teacher's distributions for a batch: computed beside the student, or read from a cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from colbuild.errors import BuildError
from colbuild.spec.model.precision import EXACT, FORWARD
from colbuild.train.across.across_losses import AcrossView, across_loss
from colbuild.train.across.aligned_text import Reader, cross
from colbuild.train.across.vocabularies import Projection
from colbuild.train.batch import Batch
from colbuild.train.losses.forward import final_hidden, head_weight
from colbuild.train.losses.hidden_cosine import watching
from colbuild.train.losses.logits_buffer import Room
from colbuild.train.losses.losses import LossWeights, TeacherView, Teaching, chunked_distillation_loss


@dataclass(frozen=True, eq=False)
class Lesson:
    """The teacher's view of a batch.

    Attributes:
        view: Of the tokens that follow; None where only the text says something.
        states: Its hidden states [tokens, hidden] at the compared blocks; empty where they are not compared.
    """

    view: Teaching | AcrossView | None
    states: tuple[torch.Tensor, ...] = ()

    def loss(
        self,
        hidden: torch.Tensor,
        head: torch.Tensor,
        targets: torch.Tensor,
        weights: LossWeights,
        room: Room | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(loss, divergence, cross-entropy) of a student's final hidden states [tokens, hidden] with its head."""
        if self.view is None or isinstance(self.view, AcrossView):
            return across_loss(hidden, head, self.view, targets, weights, room)
        return chunked_distillation_loss(hidden, head, self.view, targets, weights, room)


@dataclass(frozen=True, eq=False)
class Across:
    """The reading of a teacher with another vocabulary.

    Attributes:
        student: How the student reads.
        teacher: How the teacher does.
        projection: From the teacher's vocabulary to the student's.
        loss: What compares the two, a key of `colbuild.train.across.across_losses.NEXT`.
    """

    student: Reader
    teacher: Reader
    projection: Projection
    loss: str


_HINT = f"run colbuild cache verify, or set precision: {EXACT} in the recipe if it overflows in {FORWARD}"

Teacher = Callable[[Batch], Lesson]
"""Batch -> lesson. No gradient flows through it."""


def online(model: PreTrainedModel, compared: tuple[nn.Module, ...] = ()) -> Teacher:
    """A teacher that computes; `compared` are the blocks whose hidden states are wanted."""
    model.eval().requires_grad_(False)

    def teach(batch: Batch) -> Lesson:
        with torch.no_grad(), watching(compared) as states:
            hidden = final_hidden(model, batch.tokens, batch.documents)
        _check(hidden)
        return Lesson(TeacherView(hidden, head_weight(model)), tuple(states))

    return teach


def cached(read: Callable[[Batch], Teaching]) -> Teacher:
    """A teacher whose lessons were written down before."""
    return lambda batch: Lesson(read(batch))


def online_across(model: PreTrainedModel, across: Across) -> Teacher:
    """A teacher of another vocabulary that computes: it reads the same text in its own tokens."""
    model.eval().requires_grad_(False)
    positions = int(model.config.max_position_embeddings)
    head = head_weight(model)
    projection = across.projection.to_device(head.device)

    def teach(batch: Batch) -> Lesson:
        crossing = cross(batch, across.student, across.teacher, positions).to(head.device)
        with torch.no_grad():
            hidden = final_hidden(model, crossing.tokens, crossing.documents)
        _check(hidden)
        return Lesson(AcrossView(hidden, head, crossing, projection, across.loss))

    return teach


def text_alone(_: Batch) -> Lesson:
    """No teacher: what there is to learn is in the text."""
    return Lesson(None)


def _check(hidden: torch.Tensor) -> None:
    """Raises BuildError if a teacher computes no numbers; in the loss it would look like a training that diverges."""
    if not torch.isfinite(hidden).all():
        raise BuildError("the teacher computes NaN or infinity: its weights are damaged", hint=_HINT)
