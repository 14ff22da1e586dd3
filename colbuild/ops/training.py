"""What distill and recover share: a student checkpoint trained towards a teacher checkpoint."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import torch

from colbuild.errors import BuildError
from colbuild.ops.models import check_vocabulary, model_of
from colbuild.ops.step import StepRun
from colbuild.spec.models import Recipe
from colbuild.train.keeper import Keeping
from colbuild.train.loop import steps_of, train
from colbuild.train.packing import open_corpus, training_batch
from colbuild.train.state import Reading
from colbuild.weights.checkpoint import Checkpoint, save_checkpoint, write_json

PRECISIONS = {"bf16": torch.bfloat16, "fp32": torch.float32}


def train_checkpoint(
    start: Checkpoint, teacher: Checkpoint, recipe: Recipe, step: StepRun, *, companions: Path
) -> None:
    """Trains `start` towards `teacher` and writes the model with `training.json` into the step's output.

    An interrupted training leaves checkpoints in the step's `partial`, and the next run goes on from them.

    Args:
        start: Where the student starts; its tensors are left as they are.
        teacher: Whom it follows.
        recipe: How.
        step: Gives the corpus and its split, takes the result.
        companions: The folder whose tokenizer goes with the model.

    Raises:
        BuildError: The corpus is too small, a sequence is longer than the model's positions, or training diverges.
        StoppedError: The step was asked to stop.
    """
    dtype = PRECISIONS[recipe.precision]
    student = model_of(start, dtype)
    positions = int(student.config.max_position_embeddings)
    if recipe.sequence > positions:
        raise BuildError(
            f"the recipe's sequence has {recipe.sequence} tokens, the model only {positions} positions",
            hint=f"set sequence to at most {positions} in the recipe",
        )
    corpus = open_corpus(step.inputs["corpus"], step.params["split"])
    check_vocabulary(corpus.vocabulary, student)

    def batches(index: int) -> torch.Tensor:
        return training_batch(corpus, seed=recipe.seed, step=index, batch=recipe.batch, sequence=recipe.sequence)

    keeping = Keeping(step.partial, step.checkpoint_every, step.stopping)
    readings = train(student, model_of(teacher, dtype), batches, recipe, step.report, keeping)
    stored = {name: tensor.dtype for name, tensor in start.tensors.items()}
    weights = {name: tensor.detach().to(stored[name]) for name, tensor in student.named_parameters()}
    save_checkpoint(replace(start, tensors=weights), step.output, companions)
    write_json(step.output / "training.json", _summary(readings, recipe, corpus.tokens))


def _summary(readings: list[Reading], recipe: Recipe, available: int) -> dict[str, object]:
    trained = steps_of(recipe) * recipe.batch * recipe.sequence
    return {
        "steps": len(readings),
        "tokens": trained,
        "epochs": round(trained / available, 4),
        "curve": [asdict(reading) for reading in readings],
    }
