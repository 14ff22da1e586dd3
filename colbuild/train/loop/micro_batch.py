"""The size of micro-batches, and the reaction to memory that runs out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from colbuild.arch import Structure
from colbuild.errors import BuildError
from colbuild.plan.workload.at_once import MICRO_TOKENS
from colbuild.plan.workload.model_memory import training_memory
from colbuild.spec.model.recipe import Recipe

_GPU_SHARE: Final = 0.8
"""How much of a GPU's memory is planned with."""


@dataclass(frozen=True)
class Micro:
    """The division of a batch into micro-batches.

    Attributes:
        rows: Sequences at once.
        recompute: Whether activations are computed again in the backward pass instead of kept.
        fixed: Whether the user said how many rows; then only `recompute` can give way.
        may_recompute: Whether it may.
    """

    rows: int
    recompute: bool
    fixed: bool
    may_recompute: bool


def first_micro(recipe: Recipe, student: Structure, teacher: Structure, device: torch.device) -> Micro:
    """Returns the first micro-batch size of a training.

    Args:
        recipe: Says `micro_batch` and `gradient_checkpointing`.
        student: The student's structure.
        teacher: The teacher's.
        device: Where it runs.
    """
    recompute = recipe.gradient_checkpointing == "always"
    may = recipe.gradient_checkpointing == "auto"
    if recipe.micro_batch != "auto":
        return Micro(min(recipe.micro_batch, recipe.batch), recompute, fixed=True, may_recompute=may)
    if device.type != "cuda":
        return Micro(_bounded(MICRO_TOKENS // recipe.sequence, recipe), recompute, fixed=False, may_recompute=may)
    room = torch.cuda.get_device_properties(device).total_memory * _GPU_SHARE
    # As if all of a batch went through the whole student: which rows do is drawn anew at every step. Texts are written between
    # steps, fewer at once where they do not fit.
    plain = recipe.model_copy(update={"elastic": None, "on_policy": None})
    base, one = (training_memory(student, student, teacher, plain, rows * recipe.sequence) for rows in (0, 1))
    return Micro(_bounded(int((room - base) // (one - base)), recipe), recompute, fixed=False, may_recompute=may)


def smaller(micro: Micro) -> Micro:
    """Returns the next size after memory ran out: half as many sequences, then gradient checkpointing.

    Raises:
        BuildError: Nothing is left to give way.
    """
    if micro.rows > 1 and not micro.fixed:
        return replace(micro, rows=(micro.rows + 1) // 2)
    if micro.may_recompute and not micro.recompute:
        return replace(micro, recompute=True)
    raise BuildError(
        f"memory ran out with a micro-batch of {micro.rows} {'sequence' if micro.rows == 1 else 'sequences'}"
        + (" and gradient checkpointing" if micro.recompute else ""),
        hint=_hint(micro),
    )


def _hint(micro: Micro) -> str:
    if micro.fixed and micro.rows > 1:
        return "set micro_batch: auto, or a smaller one, in the recipe"
    if not micro.recompute:
        return "set gradient_checkpointing: auto, or a smaller sequence, in the recipe"
    return "set a smaller sequence in the recipe, or give the build more memory"


def _bounded(rows: int, recipe: Recipe) -> int:
    """At most so many, and so that a batch is cut evenly."""
    most = max(1, min(rows, recipe.batch))
    return -(-recipe.batch // -(-recipe.batch // most))


def recompute(blocks: Iterable[nn.Module]) -> None:
    """Makes transformer blocks compute their activations again in the backward pass (Chen et al., arXiv 1604.06174).

    By hand, as transformers does it in training mode only, which turns dropout on.
    """
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
