"""distill: an anchor, started as its predecessor's subset and trained to follow it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from colbuild.arch import Shape, parameters
from colbuild.plan.drawing.draft import SPLIT, Draft, FamilyPath
from colbuild.plan.drawing.step import Step
from colbuild.plan.operation import CHAT, TOKENIZER, WEIGHTS, Operation, Scene, TrainingParams, Work
from colbuild.plan.shapes.chain import Chain
from colbuild.plan.shapes.members import Member, Placed
from colbuild.plan.workload.kept_embeddings import with_own_start
from colbuild.plan.workload.training import (
    recipe_params,
    recipe_settings,
    steered,
    trained_ends,
    training_work,
)
from colbuild.spec.model.recipe import Elastic, Recipe


@dataclass(frozen=True)
class DistillParams(TrainingParams):
    """Parameters of `distill`.

    Attributes:
        shape: The anchor's.
        interval: For `elastic: {form: anchor}`, the smallest shape that is trained.
    """

    shape: Shape
    interval: Shape | None = None

    @property
    def keeps_nested(self) -> bool:
        """Whether a nested student is kept beside the anchor."""
        return self.recipe.elastic is not None and self.recipe.elastic.form == "segment"


def draw(draft: Draft, chain: Chain, index: int, path: FamilyPath, inputs: Mapping[str, str], split: str) -> str:
    """Draws the distillation of an anchor of the chain, given by its position among the anchors."""
    params = distill_params(chain, index, split)
    places: dict[str, FamilyPath] = {"": path, "shape": path, "recipe": (*path, "recipe"), "split": SPLIT}
    if "interval" in params:
        places["interval"] = (*path, "recipe", "elastic")
    settings = recipe_settings(chain.recipes[index])
    return draft.add(Step("distill", chain.anchors[index].name, params, inputs=inputs, settings=settings), places)


def distill_params(chain: Chain, index: int, split: str) -> dict[str, Any]:
    """The parameters of distilling an anchor of the chain, given by its position among the anchors."""
    member, recipe = chain.anchors[index], chain.recipes[index]
    elastic = elastic_of(chain, member.name, recipe)
    params = {
        "shape": asdict(member.structure.shape),
        "recipe": recipe_params(recipe, elastic),
        "split": split,
    }
    if elastic is not None and elastic.form == "anchor":
        params["interval"] = asdict(lower_end(chain, member.name).structure.shape)
    return params


def elastic_of(chain: Chain, anchor: str, recipe: Recipe) -> Elastic | None:
    """Returns the elastic settings of an anchor; None without them, or without a DesNet in the interval.

    ::

        form: anchor     a100 with its sub-shapes down to a76     if a DesNet lies between a100 and a76
        form: segment    a76 with all between a100 and a76        the same

    The AnsNet is not trained, so that with `anchor` no sub-shapes of it are.
    """
    asked = recipe.elastic
    if asked is None:
        return None

    def is_used(placed: Placed) -> bool:
        if asked.form == "segment":
            return placed.mixed and placed.smaller is not None and placed.smaller.name == anchor
        return placed.smaller is not None and placed.larger.name == anchor

    return asked if any(map(is_used, chain.desnets)) else None


def lower_end(chain: Chain, anchor: str) -> Member:
    """The next anchor on the route, down to which the anchor's sub-shapes are trained.

    If there is none, as no DesNet needs one: the next anchor below those DesNets, for its shape.
    """
    onward = (step.student for step in chain.route if step.teacher.name == anchor)
    below = (placed.smaller for placed in chain.desnets if placed.larger.name == anchor and placed.smaller is not None)
    return (*onward, *below)[0]


def _work(params: DistillParams, scene: Scene) -> Work:
    made, teacher, recipe = scene.result, scene.model("teacher"), steered(params.recipe, scene.settings)
    if "start" in scene.inputs:
        recipe = with_own_start(recipe)
    flops, memory, slower = training_work(recipe, made, teacher, params.interval)
    disk = made.stored * parameters(made)
    if params.keeps_nested:
        student, _ = trained_ends(recipe, made, teacher, params.interval)
        disk += student.stored * parameters(student)
    return Work(flops, None, disk, memory, slower)


DISTILL: Final = Operation(
    op="distill",
    epoch=3,
    params=DistillParams,
    module="colbuild.ops.distill",
    work=_work,
    reads={"teacher": (WEIGHTS,), "start": (WEIGHTS,), "chat": (TOKENIZER, CHAT)},
    home="teacher",
    made=lambda params, inputs, like: like.at(params.shape),
    flops_share=1.05,  # 231 to 239, 4 runs
    whole_machine=True,
    takes_gpu=True,
    counts_as_making=True,
)
