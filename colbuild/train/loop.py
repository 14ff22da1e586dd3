"""The training loop: a student learns from a teacher on packed text. All of it is here, to be read in one sitting."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from colbuild.errors import BuildError
from colbuild.progress import Progress, Report
from colbuild.spec.models import Recipe
from colbuild.train.forward import final_hidden, head_weight
from colbuild.train.losses import LossWeights, TeacherView, chunked_distillation_loss
from colbuild.train.schedule import learning_rate

MICRO_TOKENS = 1024
"""Tokens that pass through the models at once; a batch of more is accumulated, so that memory stays bounded."""

Batches = Callable[[int], torch.Tensor]
"""Step -> tokens [batch, sequence + 1]."""


@dataclass(frozen=True)
class Reading:
    """One step's losses in nats per token, and the learning rate it took."""

    step: int
    loss: float
    kl: float
    ce: float
    lr: float


def steps_of(recipe: Recipe) -> int:
    """How many optimiser steps a recipe's tokens make: at least one."""
    return max(1, round(recipe.tokens / (recipe.batch * recipe.sequence)))


def train(
    student: PreTrainedModel, teacher: PreTrainedModel, batches: Batches, recipe: Recipe, report: Report
) -> list[Reading]:
    """Distils `teacher` into `student`, in place; the teacher stays as it is.

    Weights live in fp32 for the optimiser. With precision bf16 the student that computes is a bf16 copy, renewed after
    each step: casting once per step is cheaper than autocast's casting at every use.

    Args:
        student: In the precision of the recipe.
        teacher: In the same.
        batches: Where a step's tokens come from.
        recipe: How to train.
        report: Told after each step.

    Raises:
        BuildError: The loss or its gradient is no longer a number.
    """
    steps = steps_of(recipe)
    weights = LossWeights(recipe.loss.kd_weight, recipe.loss.ce_weight, recipe.loss.temperature)
    computing = [parameter for parameter in student.parameters() if parameter.requires_grad]
    masters = [parameter.detach().float().clone() for parameter in computing]
    for master, parameter in zip(masters, computing, strict=True):
        parameter.register_post_accumulate_grad_hook(_add_to(master))
    optimizer = _optimizer(masters, recipe)
    # Also the student: dropout, if its configuration has any, would draw from state that no seed of ours decides.
    student.eval()
    teacher.eval()
    readings = []
    for step in range(steps):
        schedule = recipe.schedule
        lr = learning_rate(
            step, steps, peak=recipe.optimizer.lr, kind=schedule.type, warmup=schedule.warmup, final=schedule.final
        )
        loss, kl, ce = _accumulate(student, teacher, batches(step), weights)
        _check_finite("the loss", loss, step, steps)
        # A loss can be finite and its gradient not; after the last step nothing else would notice.
        norm = torch.nn.utils.clip_grad_norm_(masters, recipe.optimizer.clip)
        _check_finite("the gradient's norm", norm.item(), step, steps)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for master, parameter in zip(masters, computing, strict=True):
                parameter.copy_(master)
        readings.append(Reading(step, loss, kl, ce, lr))
        done = (step + 1) * recipe.batch * recipe.sequence
        total = steps * recipe.batch * recipe.sequence
        report(Progress(done, total, "tokens", f"step {step + 1}/{steps}", {"loss": loss}))
    return readings


def _check_finite(what: str, value: float, step: int, steps: int) -> None:
    if not math.isfinite(value):
        raise BuildError(
            f"{what} is {value} at step {step + 1} of {steps}",
            hint="lower optimizer.lr or set precision: fp32 in the recipe",
        )


def _optimizer(masters: list[torch.Tensor], recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW; weight decay pulls on matrices only, as is usual."""
    settings = recipe.optimizer
    groups: list[dict[str, Any]] = [
        {"params": [tensor for tensor in masters if tensor.dim() >= 2], "weight_decay": settings.weight_decay},
        {"params": [tensor for tensor in masters if tensor.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, eps=settings.eps, fused=True)


def _add_to(master: torch.Tensor) -> Callable[[torch.Tensor], None]:
    """A hook that moves a parameter's gradient to its fp32 master as soon as it is there.

    So parts of a batch are summed in fp32, and the gradients never exist twice.
    """

    def hook(parameter: torch.Tensor) -> None:
        gradient = parameter.grad
        if gradient is not None:
            master.grad = gradient.float() if master.grad is None else master.grad.add_(gradient)
        parameter.grad = None

    return hook


def _accumulate(
    student: PreTrainedModel, teacher: PreTrainedModel, batch: torch.Tensor, weights: LossWeights
) -> tuple[float, float, float]:
    """Computes one batch's gradients, which the hooks collect; returns (loss, KL, cross-entropy) in nats per token."""
    rows = max(1, MICRO_TOKENS // (batch.shape[1] - 1))
    totals = [0.0, 0.0, 0.0]
    for part in torch.split(batch, rows):
        share = part.shape[0] / batch.shape[0]
        tokens, targets = part[:, :-1], part[:, 1:].reshape(-1)
        with torch.no_grad():
            view = TeacherView(final_hidden(teacher, tokens), head_weight(teacher))
        loss, kl, ce = chunked_distillation_loss(
            final_hidden(student, tokens), head_weight(student), view, targets, weights
        )
        torch.autograd.backward(loss * share)
        for index, value in enumerate((loss, kl, ce)):
            totals[index] += value.item() * share
    return totals[0], totals[1], totals[2]
