"""A kind of step of the tests' own: `weigh` writes down how many bytes a model's files have."""

from __future__ import annotations

import json
from dataclasses import dataclass

from colbuild.arch import parameters
from colbuild.ops.step_run import StepRun
from colbuild.plan.drawing.draft import Drawn, Model
from colbuild.plan.drawing.step import Step
from colbuild.plan.operation import WEIGHTS, Operation, Params, Scene, Work


@dataclass(frozen=True)
class WeighParams(Params):
    """Parameters of `weigh`.

    Attributes:
        unit: Bytes of the unit.
    """

    unit: int


def run(step: StepRun, params: WeighParams) -> None:
    size = sum(path.stat().st_size for path in step.inputs["model"].iterdir())
    (step.output / "weight.json").write_text(json.dumps({"weight": size / params.unit}))


def _draw(drawn: Drawn, model: Model) -> None:
    step = Step("weigh", model.name, {"unit": 1000}, inputs={"model": model.made_by})
    drawn.others[model.name] = [drawn.draft.add(step, {"": model.path, "unit": model.path})]


def _work(params: WeighParams, scene: Scene) -> Work:
    model = scene.model("model")
    return Work(None, parameters(model) * model.stored, 20, 10**6)


WEIGH = Operation(
    op="weigh",
    epoch=1,
    params=WeighParams,
    module="tests.plan.weighing",
    work=_work,
    title=lambda name: f"the weight of {name}",
    reads={"model": (WEIGHTS,)},
    draws=_draw,
    byte_share=50.0,
)
