"""bridge: anchor zero of a family, in another architecture or vocabulary, distilled from the AnsNet."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from colbuild.arch import Structure, parameters, structure_to_json
from colbuild.plan.drawing.draft import SPLIT, Draft, FamilyPath, FamilyTexts
from colbuild.plan.drawing.step import Step
from colbuild.plan.operation import (
    CHAT,
    TOKENIZER,
    WEIGHTS,
    Operation,
    Scene,
    TextNeed,
    TrainingParams,
    Work,
)
from colbuild.plan.shapes.bridge_shape import BRIDGE, Bridged
from colbuild.plan.shapes.members import ANSNET
from colbuild.plan.steps import corpus, order
from colbuild.plan.steps.teach import chat_input, draw_lessons
from colbuild.plan.workload.at_once import WINDOW
from colbuild.plan.workload.training import (
    bridge_recipe_params,
    recipe_settings,
    steered,
    trained_tokens,
    training_work,
)
from colbuild.spec.model.family import Data, Family, Generate

_MORE: Final = 1.25
"""How much more the AnsNet writes for `seqkd` than the student trains on: they count in other tokens."""


@dataclass(frozen=True)
class BridgeParams(TrainingParams):
    """Parameters of `bridge`.

    Attributes:
        structure: The bridge's.
        start: How it starts.
        positions: The most tokens that it reads, where the spec says so.
        tokens: Calibration tokens of a transplant.
    """

    structure: Structure
    start: str
    positions: int | None = None
    tokens: int | None = None

    @property
    def by_text(self) -> bool:
        """Whether the teacher says nothing of a text but what it has written in it."""
        return self.recipe.loss.across == "seqkd"

    @property
    def taught_tokens(self) -> int:
        """See `Params`."""
        return 0 if self.by_text else trained_tokens(self.recipe)

    def texts(self, roles: Collection[str]) -> Iterable[TextNeed]:
        """See `Params`."""
        yield from super().texts(roles)
        if "calibration" in roles and self.tokens is not None:
            yield TextNeed(self.tokens, WINDOW, ("tokens",), role="calibration")


def draw(draft: Draft, family: Family, bridge: Bridged, source: str, texts: FamilyTexts) -> str:
    """Draws the bridge, and the model that it starts from."""
    asked, path = bridge.asked, (BRIDGE,)
    recipe, split = asked.recipe, family.data.train.split
    params: dict[str, Any] = {
        "structure": structure_to_json(bridge.structure),
        "start": asked.start,
        "recipe": bridge_recipe_params(recipe, across=bridge.across),
        "split": split,
    }
    if asked.positions is not None:
        params["positions"] = asked.positions
    inputs = {"teacher": source, "tokenizer": texts.tokenizer, "corpus": texts.train}
    if asked.start == "transplant":
        inputs["teacher"] = order.draw(draft, family, ANSNET, source, texts.ansnet_train)
        inputs["calibration"] = texts.ansnet_train
        params["tokens"] = family.order.tokens
    places: dict[str, FamilyPath] = {"": path, "structure": path, "recipe": (*path, "recipe"), "split": SPLIT}
    places |= {"start": (*path, "start"), "tokens": ("order", "tokens"), "positions": (*path, "positions")}
    if bridge.across and recipe.loss.across == "seqkd":
        wanted = Generate(tokens=round(_MORE * trained_tokens(recipe)), length=recipe.sequence, seed=recipe.seed)
        written = Data(generate=wanted, heldout=0.0)
        place = (*path, "recipe", "loss", "across")
        inputs["corpus"] = corpus.draw(draft, BRIDGE, written, source, texts.tokenizer, place)
        params["split"] = "train"
    else:
        inputs |= draw_lessons(draft, recipe, (*path, "recipe"), ANSNET, BRIDGE, inputs, split)
        inputs |= chat_input(recipe, inputs)
    return draft.add(Step("bridge", "", params, inputs=inputs, settings=recipe_settings(recipe)), places)


def _made(params: BridgeParams, inputs: Mapping[str, Structure], like: Structure) -> Structure | None:
    found = params.structure
    return replace(found, stored=inputs["teacher"].stored) if "teacher" in inputs else found


def _work(params: BridgeParams, scene: Scene) -> Work:
    made, recipe = scene.result, steered(params.recipe, scene.settings)
    if params.by_text:
        recipe = recipe.model_copy(update={"teacher": "cached"})
    flops, memory, slower = training_work(recipe, made, scene.model("teacher"))
    return Work(flops, None, made.stored * parameters(made), memory, slower)


BRIDGE_STEP: Final = Operation(
    op="bridge",
    epoch=2,
    params=BridgeParams,
    module="colbuild.ops.bridge",
    work=_work,
    title=lambda _: "the bridge",
    reads={"teacher": (WEIGHTS, TOKENIZER), "tokenizer": (TOKENIZER,), "chat": (TOKENIZER, CHAT)},
    home="tokenizer",
    made=_made,
    flops_share=1.05,  # trains as distill does; no run
    whole_machine=True,
    takes_gpu=True,
    counts_as_making=True,
)
