"""distill: an anchor, started as its predecessor's subset and trained to follow it."""

from __future__ import annotations

import torch

from colbuild.arch import Shape
from colbuild.ops.step import StepRun
from colbuild.ops.training import train_checkpoint
from colbuild.spec.models import Recipe
from colbuild.weights.checkpoint import load_checkpoint
from colbuild.weights.subset import subset


def run(step: StepRun) -> None:
    """Distils the chain's next anchor from the one before it (Chain-of-Learngene, arXiv 2605.07783, section 3.2).

    Inputs: `teacher`, `corpus`. Params: `shape`, `recipe`, `split`. The output holds the model and `training.json`.
    """
    teacher = load_checkpoint(step.inputs["teacher"])
    with torch.no_grad():
        start = subset(teacher, Shape(**step.params["shape"]))
    recipe = Recipe.model_validate(step.params["recipe"], strict=False)
    train_checkpoint(start, teacher, recipe, step, companions=step.inputs["teacher"])
