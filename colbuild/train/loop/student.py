"""The student of a training: the weights of the optimiser, and those of the forward pass.

Weights live in fp32 for the optimiser, which loses small updates in bf16. What computes is a copy in the recipe's precision,
renewed after each step: casting once per step is cheaper than autocast's casting at every use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

import torch
from torch import nn
from transformers import PreTrainedModel

from colbuild.train.batch import Batch
from colbuild.train.losses.forward import final_hidden, head_weight
from colbuild.train.losses.logits_buffer import add

Forward = Callable[[Batch], tuple[torch.Tensor, torch.Tensor]]
"""Batch -> (final hidden states [tokens, hidden], head [vocabulary, hidden]); gradients flow to the student's parameters."""


class Trained(Protocol):
    """The parameters of the optimiser in place of a student's weights."""

    def start(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        """Returns a new fp32 tensor with the model's weight, for the optimiser."""

    def computed(self, name: str, master: torch.Tensor) -> torch.Tensor:
        """The weight that computes, for such a tensor."""

    def gradient(self, name: str, gradient: torch.Tensor) -> torch.Tensor:
        """The tensor's gradient, for the weight's."""


class Weights:
    """A `Trained` for weights that are trained themselves."""

    def start(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        """A copy in fp32."""
        return weight.detach().float().clone()

    def computed(self, name: str, master: torch.Tensor) -> torch.Tensor:
        """The same."""
        return master

    def gradient(self, name: str, gradient: torch.Tensor) -> torch.Tensor:
        """The same."""
        return gradient


WEIGHTS: Final[Trained] = Weights()


@dataclass(frozen=True)
class Pass:
    """Some rows of a batch on their way through the student, or through a part of it.

    Attributes:
        start: The first row.
        stop: The row after the last.
        forward: What they pass through.
        flops: FLOPs of that for each token.
    """

    start: int
    stop: int
    forward: Forward
    flops: int


Passes = Callable[[int, int], tuple[Pass, ...]]
"""(step, rows of its batch) -> how they pass through the student; a function of these two only."""


def through(model: PreTrainedModel, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch through one model, as a `Forward`."""
    return final_hidden(model, batch.tokens, batch.documents), head_weight(model)


def whole(model: PreTrainedModel, flops: int) -> Passes:
    """Every row through the whole model, whose forward pass takes `flops` for a token."""
    return lambda step, rows: (Pass(0, rows, partial(through, model), flops),)


class Student:
    """A model in training.

    Attributes:
        model: What computes.
        masters: Name -> fp32 tensor that the optimiser changes; its gradient is summed here, in fp32 too.
        passes: How a batch passes through it.
        recompute: Makes it compute its activations again in the backward pass.
        blocks: Its transformer blocks.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        start: Mapping[str, torch.Tensor],
        passes: Passes,
        recompute: Callable[[], None],
        blocks: Sequence[nn.Module],
        trained: Trained = WEIGHTS,
    ) -> None:
        self.model = model
        self.passes = passes
        self.recompute = recompute
        self.blocks = tuple(blocks)
        self._start = start
        self._trained = trained
        self._computing = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self.masters = {name: trained.start(name, weight) for name, weight in self._computing.items()}
        for name, weight in self._computing.items():
            weight.register_post_accumulate_grad_hook(_add_to(self.masters[name], partial(trained.gradient, name)))
        # Also in training: dropout, if its configuration has any, would draw from state that no seed of ours decides.
        model.eval()

    @torch.no_grad()
    def renew(self) -> None:
        """Brings the weights that compute to their masters' values."""
        for name, weight in self._computing.items():
            weight.copy_(self._trained.computed(name, self.masters[name]))

    @torch.no_grad()
    def begin(self) -> None:
        """Brings the masters back to where the training began."""
        for name, weight in self._computing.items():
            start = self._start[name].to(weight.device, weight.dtype)
            self.masters[name].copy_(self._trained.start(name, start))

    def go_back(self) -> None:
        """Brings masters and weights back to where the training began."""
        self.begin()
        self.renew()

    def forget_gradients(self) -> None:
        """Drops what has been summed so far."""
        for name, weight in self._computing.items():
            weight.grad = None
            self.masters[name].grad = None


def _add_to(master: torch.Tensor, of_master: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], None]:
    """A hook that moves a parameter's gradient to its fp32 master as soon as it is there.

    So parts of a batch are summed in fp32, and the gradients never exist twice.
    """

    def hook(parameter: torch.Tensor) -> None:
        if parameter.grad is not None:
            gradient = of_master(parameter.grad)
            master.grad = gradient.float() if master.grad is None else add(master.grad, gradient)
        parameter.grad = None

    return hook
