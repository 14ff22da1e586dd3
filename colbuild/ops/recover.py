"""recover: a short training of a DesNet with its nearest anchor as the teacher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from colbuild.ops.shared.student_training import train_checkpoint
from colbuild.ops.shared.training_task import Task
from colbuild.ops.step_run import StepRun
from colbuild.plan.steps.recover import RecoverParams
from colbuild.plan.workload.training import steered
from colbuild.weights.files.checkpoint import load_checkpoint, save_checkpoint


def run(step: StepRun, params: RecoverParams) -> None:
    """Trains a model of any origin towards its teacher.

    Inputs: `start`, `teacher`, `corpus`; `lessons` where the recipe says `teacher: cached`. Params: `recipe`, `split`. The
    output holds the model and `training.json`.
    """
    start, teacher = (load_checkpoint(step.inputs[role]) for role in ("start", "teacher"))

    def keep(weights: Mapping[str, torch.Tensor]) -> None:
        save_checkpoint(replace(start, tensors=weights), step.output, step.inputs["start"])

    train_checkpoint(Task(start, teacher, steered(params.recipe, step.settings), step, params.split), keep)
