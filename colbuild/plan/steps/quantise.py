"""quantise: a model rounded to few bits and trained for a short time with the rounded weights."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from colbuild.arch import forward_flops, parameters
from colbuild.plan.drawing.draft import SPLIT, Draft, FamilyPath
from colbuild.plan.drawing.step import Step
from colbuild.plan.operation import (
    CHAT,
    TEXTS,
    TOKENIZER,
    WEIGHTS,
    Operation,
    Scene,
    TextNeed,
    TrainingParams,
    Work,
)
from colbuild.plan.shapes.route import distillation_flops
from colbuild.plan.workload.at_once import WINDOW
from colbuild.plan.workload.model_memory import quantise_memory
from colbuild.plan.workload.training import recipe_params, recipe_settings, steered, tokens_at_once, trained_tokens
from colbuild.spec.model.decides import own_params
from colbuild.spec.model.device import Profile
from colbuild.spec.model.precision import PRECISIONS


@dataclass(frozen=True)
class QuantiseParams(TrainingParams):
    """Parameters of `quantise`.

    Attributes:
        profile: The fields of a device profile that decide how matrices are rounded.
    """

    profile: Profile

    def texts(self, roles: Collection[str]) -> Iterable[TextNeed]:
        """See `Params`."""
        yield from super().texts(roles)
        yield TextNeed(self.profile.calibration, WINDOW, ("profile", "calibration"))


def draw(draft: Draft, name: str, profile: Profile, model: str, corpus: str, path: FamilyPath, split: str) -> str:
    """Draws the training of a model with rounded weights."""
    recovery = profile.recover
    assert recovery is not None
    recipe = recovery.recipe()
    params = {"profile": _rounding(profile), "recipe": recipe_params(recipe), "split": split}
    inputs = {"model": model, "corpus": corpus}
    return draft.add(
        Step("quantise", name, params, inputs=inputs, settings=recipe_settings(recipe)),
        {"": path, "profile": path, "recipe": (*path, "recover"), "split": SPLIT},
    )


def _rounding(profile: Profile) -> dict[str, Any]:
    """The fields of a profile that decide how its matrices are rounded; measurements also depend on the room that there is."""
    values = own_params(profile)
    deciding = {"precision", "block", "keep_8bit", "embedding_bits", "calibration"}
    if profile.stored.measured:
        deciding |= {"operators", "opset", "context", "static"}
        most = values["limits"]["max_package"]
        return {key: values[key] for key in sorted(deciding)} | {"limits": {"max_package": most}}
    return {key: values[key] for key in sorted(deciding)}


def _whole_package(role: str, params: Mapping[str, Any]) -> tuple[str, ...] | None:
    """All files of a model that a package has, where its rounding depends on their sizes."""
    measured = role == "model" and PRECISIONS[params["profile"]["precision"]].measured
    return (WEIGHTS, TOKENIZER, CHAT, TEXTS) if measured else None


def _work(params: QuantiseParams, scene: Scene) -> Work:
    """A model that is calibrated, forward and back, and whose scales are trained; codes take a byte each."""
    model, recipe = scene.model("model"), steered(params.recipe, scene.settings)
    forward = forward_flops(model, recipe.sequence)
    flops = distillation_flops(trained_tokens(recipe), forward, forward)
    flops += 3 * params.profile.calibration * forward_flops(model, WINDOW)
    return Work(flops, None, parameters(model), quantise_memory(model, recipe, tokens_at_once(recipe)))


QUANTISE: Final = Operation(
    op="quantise",
    epoch=2,
    params=QuantiseParams,
    module="colbuild.ops.quantise",
    work=_work,
    reads={"model": (WEIGHTS,)},
    reads_besides=_whole_package,
    flops_share=1.05,  # trains as distill does; no run
    whole_machine=True,
    takes_gpu=True,
    counts_as_making=True,
)
