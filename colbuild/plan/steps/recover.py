"""recover: a short training of a DesNet with its nearest anchor as the teacher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from colbuild.arch import parameters
from colbuild.plan.drawing.draft import SPLIT, Draft, FamilyPath
from colbuild.plan.drawing.step import Step
from colbuild.plan.operation import CHAT, TOKENIZER, WEIGHTS, Operation, Scene, TrainingParams, Work
from colbuild.plan.workload.training import recipe_params, recipe_settings, steered, training_work
from colbuild.spec.model.recipe import Recipe


@dataclass(frozen=True)
class RecoverParams(TrainingParams):
    """Parameters of `recover`."""


def draw(draft: Draft, name: str, recipe: Recipe, path: FamilyPath, inputs: Mapping[str, str], split: str) -> str:
    """Draws the recovery of a DesNet."""
    params = {"recipe": recipe_params(recipe), "split": split}
    return draft.add(
        Step("recover", name, params, inputs=inputs, settings=recipe_settings(recipe)),
        {"": path, "recipe": (*path, "recover"), "split": SPLIT},
    )


def _work(params: RecoverParams, scene: Scene) -> Work:
    made = scene.result
    flops, memory, slower = training_work(steered(params.recipe, scene.settings), made, scene.model("teacher"))
    return Work(flops, None, made.stored * parameters(made), memory, slower)


RECOVER: Final = Operation(
    op="recover",
    epoch=2,
    params=RecoverParams,
    module="colbuild.ops.recover",
    work=_work,
    reads={"start": (WEIGHTS,), "teacher": (WEIGHTS,), "chat": (TOKENIZER, CHAT)},
    home="start",
    made=lambda params, inputs, like: inputs.get("start"),
    flops_share=1.05,  # trains as distill does; no run
    whole_machine=True,
    takes_gpu=True,
    counts_as_making=True,
)
