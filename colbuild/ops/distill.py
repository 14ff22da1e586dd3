"""distill: an anchor, started as its predecessor's subset and trained to follow it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from colbuild.ops.shared.student_training import train_checkpoint
from colbuild.ops.shared.training_task import Task
from colbuild.ops.step_run import StepRun
from colbuild.plan.steps.distill import DistillParams
from colbuild.plan.workload.kept_embeddings import with_own_start
from colbuild.plan.workload.training import steered
from colbuild.weights.files.checkpoint import load_checkpoint, save_checkpoint, save_nested
from colbuild.weights.prefix.subset import subset


def run(step: StepRun, params: DistillParams) -> None:
    """Distils the chain's next anchor from the one before it (Chain-of-Learngene, arXiv 2605.07783, section 3.2).

    Inputs: `teacher`, `corpus`; `lessons` where the recipe says `teacher: cached`; `start` for an anchor that starts from a
    checkpoint instead of the teacher's subset, aligned with the teacher. Params: `shape`, `recipe`, `split`, and
    `interval` for an elastic anchor: the shape of the next one. The output holds the model and `training.json`.

    Elastic, the student is one of

    - `anchor`: the anchor itself, trained together with its sub-shapes down to `interval`;
    - `segment`: the whole teacher, trained with its sub-shapes down to the anchor. The anchor is its prefix; the student
      itself is kept in `nested/`, for the DesNets in between.
    """
    teacher = load_checkpoint(step.inputs["teacher"])
    shape, recipe = params.shape, steered(params.recipe, step.settings)
    companions = step.inputs["teacher"]

    def keep_segment(weights: Mapping[str, torch.Tensor]) -> None:
        nested = replace(teacher, tensors=weights)
        save_checkpoint(subset(nested, shape), step.output, companions)
        save_nested(nested, step.output)

    if recipe.elastic is not None and recipe.elastic.form == "segment":
        train_checkpoint(Task(teacher, teacher, recipe, step, params.split, smallest=shape), keep_segment)
        return
    if "start" in step.inputs:
        start, recipe = load_checkpoint(step.inputs["start"]), with_own_start(recipe)
    else:
        with torch.no_grad():
            start = subset(teacher, shape)
    smallest = None if recipe.elastic is None else params.interval

    def keep(weights: Mapping[str, torch.Tensor]) -> None:
        save_checkpoint(replace(start, tensors=weights), step.output, companions)

    train_checkpoint(Task(start, teacher, recipe, step, params.split, smallest), keep)
