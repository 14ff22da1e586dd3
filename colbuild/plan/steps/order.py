"""order: a model with every axis sorted by importance, so that smaller models are prefixes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from colbuild.arch import forward_flops, parameters
from colbuild.plan.drawing.draft import SPLIT, Draft
from colbuild.plan.drawing.step import Step
from colbuild.plan.operation import WEIGHTS, CalibrationParams, Operation, Scene, Work
from colbuild.plan.shapes.members import ANSNET
from colbuild.plan.workload.at_once import WINDOW
from colbuild.plan.workload.model_memory import FORWARD, PROCESSES, block_bytes
from colbuild.spec.model.family import Family


@dataclass(frozen=True)
class OrderParams(CalibrationParams):
    """Parameters of `order`."""


def draw(draft: Draft, family: Family, name: str, model: str, corpus: str) -> str:
    """Draws the step that sorts a model's axes by importance."""
    params = {"tokens": family.order.tokens, "split": family.data.train.split}
    step = Step("order", name, params, inputs={"model": model, "corpus": corpus})
    return draft.add(step, {"": (name,), "tokens": ("order", "tokens"), "split": SPLIT})


def _work(params: OrderParams, scene: Scene) -> Work:
    """A model as it is read, as it computes, and as it is ordered."""
    made = scene.result
    memory = PROCESSES + (2 * made.stored + FORWARD) * parameters(made) + block_bytes(made, WINDOW, FORWARD)
    return Work(params.tokens * forward_flops(made, WINDOW), None, made.stored * parameters(made), memory)


ORDER: Final = Operation(
    op="order",
    epoch=1,
    params=OrderParams,
    module="colbuild.ops.order",
    work=_work,
    title=lambda name: f"the ordered {'AnsNet' if name == ANSNET else name}",
    reads={"model": (WEIGHTS,)},
    home="model",
    made=lambda params, inputs, like: inputs.get("model"),
    flops_share=0.8,  # 156 and 200 GFLOP/s, 2 runs
    whole_machine=True,
    counts_as_making=True,
)
