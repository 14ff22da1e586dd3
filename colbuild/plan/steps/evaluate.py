"""evaluate: a model's loss on held-out text, and its divergence from the AnsNet."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from colbuild.arch import forward_flops, parameters
from colbuild.plan.drawing.draft import Drawn, Model
from colbuild.plan.drawing.step import Step
from colbuild.plan.operation import WEIGHTS, Operation, Params, Scene, TextNeed, Work
from colbuild.plan.workload.at_once import WINDOW
from colbuild.plan.workload.model_memory import FORWARD, PROCESSES, scored_bytes

_REPORT: Final = 1000
"""Bytes of the metrics."""


@dataclass(frozen=True)
class EvaluateParams(Params):
    """Parameters of `evaluate`.

    Attributes:
        tokens: Tokens that it measures on.
        split: The split of the corpus that they come from.
    """

    tokens: int
    split: str

    def texts(self, roles: Collection[str]) -> Iterable[TextNeed]:
        """See `Params`."""
        yield TextNeed(self.tokens, WINDOW, ("tokens",), required=False)


def _draw(drawn: Drawn, model: Model) -> None:
    """Measures a model, once for all names that it has: a DesNet that equals an anchor is the same model."""
    data = drawn.family.data.eval
    step = Step(
        "evaluate",
        model.name,
        {"tokens": data.tokens, "split": data.split},
        inputs={"model": model.made_by, "reference": model.reference, "corpus": model.held},
    )
    places = {"": model.path, "tokens": ("data", "eval", "tokens"), "split": ("data", "eval", "split")}
    if model.made_by not in drawn.measured:
        drawn.measured[model.made_by] = drawn.draft.add(step, places)
    drawn.metrics[model.name] = drawn.measured[model.made_by]


def _work(params: EvaluateParams, scene: Scene) -> Work:
    """Models that score a window at a time; each is read into memory before it is computed with."""
    model = scene.model("model")
    models = [model] if scene.alone else [model, scene.model("reference")]
    flops = params.tokens * sum(forward_flops(one, WINDOW) for one in models)
    weights = sum(FORWARD * parameters(one) for one in models)
    scored = scored_bytes(model, FORWARD, compared=len(models) > 1)
    memory = PROCESSES + weights + max(models[-1].stored * parameters(models[-1]), scored)
    return Work(flops, None, _REPORT, memory)


EVALUATE: Final = Operation(
    op="evaluate",
    epoch=2,
    params=EvaluateParams,
    module="colbuild.ops.evaluate",
    work=_work,
    reads={"model": (WEIGHTS,), "reference": (WEIGHTS,)},
    draws=_draw,
    flops_share=0.46,  # 102 to 113 on one of two cores, 5 runs
)
