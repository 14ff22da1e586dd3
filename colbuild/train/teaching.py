"""What a teacher says of a batch: computed beside the student, or read from what was written down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from colbuild.errors import BuildError
from colbuild.train.batch import Batch
from colbuild.train.forward import final_hidden, head_weight
from colbuild.train.hidden import watching
from colbuild.train.losses import TeacherView, Teaching


@dataclass(frozen=True, eq=False)
class Lesson:
    """What the teacher says.

    Attributes:
        view: Of the tokens that follow.
        states: Its hidden states [tokens, hidden] at the compared blocks; empty where they are not compared.
    """

    view: Teaching
    states: tuple[torch.Tensor, ...] = ()


_HINT = "run colbuild cache verify, or set precision: fp32 in the recipe if it overflows in bf16"

Teacher = Callable[[Batch], Lesson]
"""Batch -> lesson. No gradient flows through it."""


def online(model: PreTrainedModel, compared: tuple[nn.Module, ...] = ()) -> Teacher:
    """A teacher that computes; `compared` are the blocks whose hidden states are wanted."""
    model.eval().requires_grad_(False)

    def teach(batch: Batch) -> Lesson:
        with torch.no_grad(), watching(compared) as states:
            hidden = final_hidden(model, batch.tokens, batch.documents)
        if not torch.isfinite(hidden).all():
            # Said here: in the loss it would look like a training that diverges.
            raise BuildError("the teacher computes NaN or infinity: its weights are damaged", hint=_HINT)
        return Lesson(TeacherView(hidden, head_weight(model)), tuple(states))

    return teach


def cached(read: Callable[[Batch], Teaching]) -> Teacher:
    """A teacher whose lessons were written down before."""
    return lambda batch: Lesson(read(batch))
