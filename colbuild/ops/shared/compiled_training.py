"""Which trainings run in compiled code. It depends on the recipe and the models alone, never on what was compiled before."""

from __future__ import annotations

import torch

from colbuild.arch import forward_flops
from colbuild.ops.shared.training_task import Task
from colbuild.plan.shapes.route import distillation_flops
from colbuild.plan.workload.training import trained_tokens
from colbuild.train.compiling import compiler_found, worth_compiling, worth_fusing


def fuses(task: Task, device: torch.device) -> bool:
    """Returns whether passes over memory are fused: the recipe wants that or it is worth it, on a CPU."""
    how = task.recipe.compile
    return device.type == "cpu" and (how == "always" or (how == "auto" and worth_fusing(_flops(task), device)))


def compiles(task: Task, device: torch.device) -> bool:
    """Returns whether student and teacher are compiled: the recipe wants that or it is worth it, and it can be done."""
    how = task.recipe.compile
    wanted = how == "always" or (how == "auto" and worth_compiling(_flops(task), device))
    return wanted and compiler_found(device)


def _flops(task: Task) -> int:
    """FLOPs of a training."""
    recipe = task.recipe
    above, below = (forward_flops(one.structure, recipe.sequence) for one in (task.teacher, task.start))
    return distillation_flops(trained_tokens(recipe), above, below)
