"""One training: its student, teacher and recipe; and its refusals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from colbuild.arch import Shape
from colbuild.errors import BuildError
from colbuild.ops.shared.running_models import check_text
from colbuild.ops.step_run import StepRun
from colbuild.plan.workload.training import trained_tokens
from colbuild.spec.model.recipe import Recipe
from colbuild.train.corpus.packing import PackedCorpus
from colbuild.train.corpus.text_windows import window_count
from colbuild.train.loop.student import Trained
from colbuild.train.loop.teaching import Across
from colbuild.weights.files.checkpoint import Checkpoint


@dataclass(frozen=True)
class Instead:
    """A student of which something else is trained than its weights; that is what its training gives, in float32.

    Attributes:
        on: Gives what is trained on a device.
        frozen: Names of weights that stay as they are.
    """

    on: Callable[[torch.device], Trained]
    frozen: frozenset[str]


@dataclass(frozen=True)
class Task:
    """One training.

    Attributes:
        start: Where the student starts; its tensors are left as they are.
        teacher: Whom it follows.
        recipe: How.
        step: Gives the corpus, takes the result.
        split: The split of the corpus that it reads.
        smallest: For an elastic training, the lower end of what is trained; None for the student alone.
        across: How the teacher is read if its vocabulary is another than the student's.
        by_text: Whether the teacher says nothing but what it has written in the text.
        instead: What of the student is trained in the place of its weights; None for the weights.
    """

    start: Checkpoint
    teacher: Checkpoint
    recipe: Recipe
    step: StepRun
    split: str
    smallest: Shape | None = None
    across: Across | None = None
    by_text: bool = False
    instead: Instead | None = None

    @property
    def two_vocabularies(self) -> bool:
        """Whether student and teacher cannot be compared token by token."""
        return self.across is not None or self.by_text


def check_models(task: Task, model: PreTrainedModel, corpus: PackedCorpus) -> None:
    """Refuses a student that cannot read the text, or whose teacher has another vocabulary. Raises BuildError."""
    check_text(corpus.vocabulary, task.recipe.sequence, model, "model")
    ours, theirs = (checkpoint.structure.shape.vocab for checkpoint in (task.start, task.teacher))
    if ours != theirs and not task.two_vocabularies:
        raise BuildError(
            f"the student has {ours:,} tokens and its teacher {theirs:,}: their distributions cannot be compared",
            hint="use a bridge to distil a model of another vocabulary",
        )


def check_tokens(recipe: Recipe, corpus: PackedCorpus) -> None:
    """Refuses a corpus that has fewer tokens than a recipe trains on once. Raises BuildError."""
    wanted = trained_tokens(recipe)
    available = window_count(corpus, recipe.sequence) * recipe.sequence
    if wanted > available and recipe.epochs == "once":
        raise BuildError(
            f"the {corpus.split} split of the corpus has {corpus.tokens:,} tokens, the recipe needs {wanted:,}: "
            f"it would be read {wanted / available:.1f} times",
            hint="give more text (a higher 'limit'), fewer 'tokens', or set epochs: allow in the recipe",
        )
