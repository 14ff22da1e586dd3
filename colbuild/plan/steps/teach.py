"""teach: a teacher's distributions on a text, stored once for every training on it (`teacher: cached`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from colbuild.arch import forward_flops, parameters
from colbuild.plan.drawing.draft import SPLIT, Draft, FamilyPath
from colbuild.plan.drawing.step import Step
from colbuild.plan.operation import WEIGHTS, Operation, Params, Scene, Work
from colbuild.plan.shapes.members import ANSNET
from colbuild.plan.workload.at_once import CHUNK_TOKENS, MICRO_TOKENS
from colbuild.plan.workload.model_memory import COMPUTED, FULL, HEAP, PROCESSES, block_bytes
from colbuild.plan.workload.training import lessons_params
from colbuild.spec.model.on_policy import CHAT as ANSWERS
from colbuild.spec.model.recipe import Recipe

LESSON: Final = 64
"""Bytes in which a teacher's lesson about a token is kept, at most."""


@dataclass(frozen=True)
class TeachParams(Params):
    """Parameters of `teach`: those of a recipe that decide the lessons.

    Attributes:
        split: The split of the corpus.
        seed: Decides the order of the text.
        sequence: Tokens in a sequence.
        windows: Sequences that the training reads: its steps times its batch.
        documents: Whether tokens see those of other documents.
        precision: The precision that the teacher computes in.
        temperature: The temperature of the loss.
        type: The form in which lessons are kept.
    """

    split: str
    seed: int
    sequence: int
    windows: int
    documents: str
    precision: str
    temperature: float
    type: Literal["sampled", "top_k"]

    @property
    def taught_tokens(self) -> int:
        """See `Params`."""
        return self.windows * self.sequence


def draw_lessons(
    draft: Draft, recipe: Recipe, path: FamilyPath, teacher: str, student: str, inputs: Mapping[str, str], split: str
) -> dict[str, str]:
    """Draws a teacher's lessons, if a recipe has them written down; returns the role that they play in the training.

    Trainings that ask the same of a teacher share one step. Its name is the teacher's; of several the name of each but the
    first also has the student that reads it first.
    """
    if recipe.teacher != "cached":
        return {}
    params = lessons_params(recipe, split)
    needed = {"teacher": inputs["teacher"], "corpus": inputs["corpus"]}
    others = [
        step for step in draft.steps.values() if step.op == "teach" and step.inputs["teacher"] == inputs["teacher"]
    ]
    same = next((step.id for step in others if step.params == params), None)
    if same is not None:
        return {"lessons": same}
    places = {key: (*path, key) for key in params}
    places |= {"": (*path, "teacher"), "split": SPLIT, "windows": (*path, "tokens")}
    places |= {"temperature": (*path, "loss", "temperature"), "type": (*path, "teacher_cache", "type")}
    name = f"{teacher} for {student}" if others else teacher
    settings = {"checkpoint_every": recipe.checkpoint_every}
    return {"lessons": draft.add(Step("teach", name, params, inputs=needed, settings=settings), places)}


def chat_input(recipe: Recipe, inputs: Mapping[str, str]) -> dict[str, str]:
    """Returns the role of the teacher as the model whose chat template says where answers begin, if a student writes these."""
    asked = recipe.on_policy
    return {} if asked is None or asked.prompt != ANSWERS else {"chat": inputs["teacher"]}


def _title(name: str) -> str:
    teacher, *reader = name.split(" ", 1)
    return " ".join([f"{'the AnsNet' if teacher == ANSNET else teacher}'s lessons", *reader])


def _work(params: TeachParams, scene: Scene) -> Work:
    """A teacher that runs forward, and the likelihoods that are drawn from."""
    teacher, computed = scene.model("teacher"), COMPUTED[params.precision]
    tokens = max(params.sequence, MICRO_TOKENS)
    chunks = 5 if params.type == "sampled" else 3
    logits = (computed + chunks * FULL) * CHUNK_TOKENS * teacher.shape.vocab
    weights = computed * parameters(teacher)
    used = max(teacher.stored * parameters(teacher), logits + round(HEAP * block_bytes(teacher, tokens, computed)))
    flops = params.taught_tokens * forward_flops(teacher, params.sequence)
    return Work(flops, None, LESSON * params.taught_tokens, PROCESSES + weights + used)


TEACH: Final = Operation(
    op="teach",
    epoch=1,
    params=TeachParams,
    module="colbuild.ops.teach",
    work=_work,
    title=_title,
    reads={"teacher": (WEIGHTS,)},
    flops_share=0.8,  # runs a model forward as order does; no run
    whole_machine=True,
    takes_gpu=True,
    counts_as_making=True,
)
