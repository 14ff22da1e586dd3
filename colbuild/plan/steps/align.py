"""align: a public checkpoint in the coordinates of its teacher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final, Literal

from colbuild.arch import Shape, Structure, forward_flops, parameters
from colbuild.plan.drawing.draft import SPLIT, Draft, FamilyPath
from colbuild.plan.drawing.step import Step
from colbuild.plan.operation import (
    TOKENIZER,
    WEIGHTS,
    CalibrationParams,
    Operation,
    Scene,
    Work,
)
from colbuild.plan.shapes.members import Member
from colbuild.plan.steps import source
from colbuild.plan.workload.at_once import WINDOW
from colbuild.plan.workload.model_memory import FORWARD, FULL, HEAP, PROCESSES, block_bytes
from colbuild.spec.model.family import Start


@dataclass(frozen=True)
class AlignParams(CalibrationParams):
    """Parameters of `align`.

    Attributes:
        shape: The checkpoint's, which is the anchor's.
        align: How parts are matched.
    """

    shape: Shape
    align: Literal["none", "permute", "procrustes"]

    @property
    def taught_tokens(self) -> int:
        """See `Params`."""
        return self.tokens


def draw(draft: Draft, start: Start, member: Member, path: FamilyPath, inputs: Mapping[str, str], split: str) -> str:
    """Draws the checkpoint that an anchor starts from, in the coordinates of its teacher."""
    place: FamilyPath = (*path, "init")
    raw = source.draw_checkpoint(draft, member.name, start.checkpoint, place)
    params = {
        "shape": asdict(member.structure.shape),
        "align": start.align,
        "tokens": start.tokens,
        "split": split,
    }
    return draft.add(
        Step("align", member.name, params, inputs={"model": raw, **inputs}),
        {"": place, "shape": path, "align": (*place, "align"), "tokens": (*place, "tokens"), "split": SPLIT},
    )


def _work(params: AlignParams, scene: Scene) -> Work:
    """Two models and all that passed through them on calibration text in fp32; weights in fp64 while they are matched.

    The embedding is turned as a whole, in fp64, and kept in fp32 besides.
    """
    made, models = scene.result, (scene.result, scene.model("teacher"))
    weights = sum((one.stored + FORWARD) * parameters(one) for one in models)
    seen = sum(_collected(one, params.tokens) + block_bytes(one, params.tokens, FORWARD) for one in models)
    turned = (8 + FULL) * made.shape.vocab * made.shape.hidden
    memory = PROCESSES + weights + round(HEAP * seen) + 3 * 8 * parameters(made) + turned
    flops = params.tokens * sum(forward_flops(model, WINDOW) for model in models)
    return Work(flops, None, made.stored * parameters(made), memory)


def _collected(model: Structure, tokens: int) -> int:
    """Bytes of what norms and output projections read and blocks add, in fp32 (`colbuild.weights.prefix.captured`)."""
    shape = model.shape
    block = 3 * shape.hidden + shape.heads * shape.head_dim + shape.ffn
    return FULL * tokens * shape.layers * block


ALIGN: Final = Operation(
    op="align",
    epoch=1,
    params=AlignParams,
    module="colbuild.ops.align",
    work=_work,
    title=lambda name: f"{name}'s start",
    reads={"model": (WEIGHTS, TOKENIZER), "teacher": (WEIGHTS, TOKENIZER)},
    home="teacher",
    made=lambda params, inputs, like: like.at(params.shape),
    inputs=lambda params, like: {"model": like.at(params.shape)},
    flops_share=0.4,  # two models forward, and matching; no run
    counts_as_making=True,
)
