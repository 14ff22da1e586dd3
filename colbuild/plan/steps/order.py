"""order: a model with every axis sorted by importance, so that smaller models are prefixes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from colbuild.arch import Structure, forward_flops, parameters
from colbuild.plan.drawing.draft import SPLIT, Draft
from colbuild.plan.drawing.step import Step
from colbuild.plan.operation import WEIGHTS, CalibrationParams, Operation, Scene, Work
from colbuild.plan.shapes.members import ANSNET
from colbuild.plan.workload.at_once import CHUNK_TOKENS, RANKED_TOKENS, WINDOW
from colbuild.plan.workload.model_memory import FORWARD, PROCESSES, block_bytes
from colbuild.spec.model.family import Family

_SCORINGS: Final = 3
"""Layers that are removed on trial for each that is removed, on average: 100 for the 30 layers of SmolLM2-135M."""


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
    shape, ranked = made.shape, min(params.tokens, RANKED_TOKENS)
    # While layers are ranked, the states before each of them, and the logits of a chunk, are held.
    ranking = ranked * shape.hidden * shape.layers * FORWARD + CHUNK_TOKENS * shape.vocab * FORWARD
    blocks = max(block_bytes(made, WINDOW, FORWARD), ranking + block_bytes(made, ranked, FORWARD))
    memory = PROCESSES + (2 * made.stored + FORWARD) * parameters(made) + blocks
    flops = params.tokens * forward_flops(made, WINDOW) + ranked * _ranking_flops(made)
    return Work(flops, None, made.stored * parameters(made), memory)


def _ranking_flops(made: Structure) -> int:
    """Returns the FLOPs of ranking layers, for one token: what follows a layer is a third of the model on average."""
    layers = made.shape.layers
    head = 2 * made.shape.hidden * made.shape.vocab
    body = forward_flops(made, WINDOW) - head
    return (layers + _SCORINGS * (layers - 1)) * (body // 3 + head) + layers * body // 2


ORDER: Final = Operation(
    op="order",
    epoch=2,
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
