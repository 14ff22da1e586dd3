"""recover: a short training of a DesNet with its nearest anchor as the teacher."""

from __future__ import annotations

from colbuild.ops.step import StepRun
from colbuild.ops.training import train_checkpoint
from colbuild.spec.models import Recipe
from colbuild.weights.checkpoint import load_checkpoint


def run(step: StepRun) -> None:
    """Trains a model of any origin towards its teacher.

    Inputs: `start`, `teacher`, `corpus`. Params: `recipe`, `split`. The output holds the model and `training.json`.
    """
    recipe = Recipe.model_validate(step.params["recipe"], strict=False)
    start = load_checkpoint(step.inputs["start"])
    teacher = load_checkpoint(step.inputs["teacher"])
    train_checkpoint(start, teacher, recipe, step, companions=step.inputs["start"])
