"""The training loop: a student learns from a teacher on packed text. All of it is here, to be read in one sitting."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from transformers import PreTrainedModel

from colbuild.errors import BuildError
from colbuild.progress import Progress, Report
from colbuild.spec.models import Loss, Recipe
from colbuild.train.forward import final_hidden, head_weight
from colbuild.train.keeper import Keeper, Keeping
from colbuild.train.losses import LossWeights, TeacherView, chunked_distillation_loss
from colbuild.train.schedule import learning_rate
from colbuild.train.state import Reading, State

MICRO_TOKENS = 1024
"""Tokens that pass through the models at once; a batch of more is accumulated, so that memory stays bounded."""

Batches = Callable[[int], torch.Tensor]
"""Step -> tokens [batch, sequence + 1]."""


def steps_of(recipe: Recipe) -> int:
    """How many optimiser steps a recipe's tokens make: at least one."""
    return max(1, round(recipe.tokens / (recipe.batch * recipe.sequence)))


def train(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    batches: Batches,
    recipe: Recipe,
    report: Report,
    keeping: Keeping = Keeping(),  # noqa: B008  (it is frozen)
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
        keeping: What a run that is interrupted leaves for the next one; it changes nothing in the result.

    Raises:
        StoppedError: It was asked to stop between two steps.
        BuildError: The loss or its gradient is no longer a number.
    """
    steps = steps_of(recipe)
    weights = _weights(recipe.loss)
    trained = {name: parameter for name, parameter in student.named_parameters() if parameter.requires_grad}
    computing = list(trained.values())
    masters = [parameter.detach().float().clone() for parameter in computing]
    for master, parameter in zip(masters, computing, strict=True):
        parameter.register_post_accumulate_grad_hook(_add_to(master))
    optimizer = _optimizer(masters, recipe)
    # Also the student: dropout, if its configuration has any, would draw from state that no seed of ours decides.
    student.eval()
    teacher.eval()
    readings: list[Reading] = []
    state = State(dict(zip(trained, masters, strict=True)), optimizer, readings)
    keeper = Keeper(keeping, steps)
    keeper.resume(state)
    if readings:
        _renew(computing, masters)
        report(_progress(readings, steps, recipe, ", resumed"))
    for step in range(len(readings), steps):
        keeper.between(state)
        schedule = recipe.schedule
        lr = learning_rate(
            step,
            steps,
            peak=recipe.optimizer.lr,
            kind=schedule.type,
            warmup=schedule.warmup,
            final=schedule.final,
            decay=schedule.decay or 0.0,
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
        _renew(computing, masters)
        readings.append(Reading(step, loss, kl, ce, lr))
        report(_progress(readings, steps, recipe, f", no checkpoint: {keeper.trouble}" if keeper.trouble else ""))
    return readings


def _weights(loss: Loss) -> LossWeights:
    return LossWeights(loss.kd_weight, loss.ce_weight, loss.temperature, loss.type, loss.skew or 0.0)


@torch.no_grad()
def _renew(computing: list[torch.nn.Parameter], masters: list[torch.Tensor]) -> None:
    """Brings the parameters that compute to their fp32 masters' values."""
    for master, parameter in zip(masters, computing, strict=True):
        parameter.copy_(master)


def _progress(readings: list[Reading], steps: int, recipe: Recipe, remark: str) -> Progress:
    size = recipe.batch * recipe.sequence
    done = len(readings)
    return Progress(done * size, steps * size, "tokens", f"step {done}/{steps}{remark}", {"loss": readings[-1].loss})


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
    """Computes one batch's gradients, which the hooks collect; returns (loss, divergence, cross-entropy) in nats per token."""
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
