"""source: a model from outside as a plain Hugging Face folder: the AnsNet, and checkpoints that anchors start from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from colbuild.arch import parameters
from colbuild.plan.drawing.draft import Draft, FamilyPath
from colbuild.plan.drawing.step import Step
from colbuild.plan.operation import Operation, Params, Scene, Work
from colbuild.plan.shapes.members import ANSNET
from colbuild.plan.workload.model_memory import FULL, TRIED_TOKEN
from colbuild.spec.model.family import Family

BEGIN: Final[FamilyPath] = ("data", "begin")

_CONVERTING: Final = 515_000_000
"""Memory of a build's processes with the libraries loaded, for a step that converts a model, without its tokenizer."""


@dataclass(frozen=True)
class SourceParams(Params):
    """Parameters of `source`.

    Attributes:
        begin: The token that texts begin with; None where the tokenizer decides.
    """

    begin: str | None = None


def begin_params(family: Family) -> dict[str, Any]:
    """The token that the spec makes texts begin with, as a parameter; nothing where the tokenizer decides."""
    return {} if family.data.begin is None else {"begin": family.data.begin}


def draw(draft: Draft, family: Family) -> str:
    """Draws the AnsNet."""
    step = Step("source", ANSNET, begin_params(family), sources={"raw": family.ansnet.source})
    return draft.add(step, {"": ("ansnet", "source"), "begin": BEGIN})


def draw_checkpoint(draft: Draft, anchor: str, uri: str, place: FamilyPath) -> str:
    """Draws the public checkpoint that an anchor starts from."""
    return draft.add(Step("source", anchor, {}, sources={"raw": uri}), {"": (*place, "checkpoint")})


def _title(name: str) -> str:
    return "the AnsNet" if name == ANSNET else f"{name}'s checkpoint"


def _work(params: SourceParams, scene: Scene) -> Work:
    """All weights of a model that is converted; those of a GGUF file pass as codes, the largest in fp32."""
    made, shape = scene.result, scene.result.shape
    disk = made.stored * parameters(made)
    coded = 2 * FULL * shape.hidden * max(shape.vocab, shape.ffn) if scene.source.endswith(".gguf") else 0
    return Work(None, disk, disk, _CONVERTING + TRIED_TOKEN * shape.vocab + disk + coded)


SOURCE: Final = Operation(
    op="source",
    epoch=3,
    params=SourceParams,
    module="colbuild.ops.source.convert",
    work=_work,
    title=_title,
    byte_share=2.8,  # 30 and 55 MB/s of weights in 16 bits, read from GGUF; 2 runs
)
