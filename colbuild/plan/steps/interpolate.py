"""interpolate: a DesNet from the two anchors around it, without training."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Final, Literal

from colbuild.arch import Shape, Structure, forward_flops, parameters
from colbuild.plan.drawing.draft import Draft, FamilyPath
from colbuild.plan.drawing.step import Step
from colbuild.plan.operation import WEIGHTS, Operation, Params, Scene, TextNeed, Work
from colbuild.plan.shapes.members import Member
from colbuild.plan.workload.at_once import WINDOW
from colbuild.plan.workload.model_memory import FORWARD, PROCESSES, STREAMED, scored_bytes
from colbuild.spec.model.family import Data
from colbuild.spec.model.mixing import Interpolate


def first_windows(windows: int) -> int:
    """Returns how many windows the first part of a calibration text has: half of them, rounded up."""
    return (windows + 1) // 2


@dataclass(frozen=True)
class Scorings:
    """How many mixtures a way of interpolating scores, at most.

    Attributes:
        whole: On all of the calibration tokens; a step down the slopes of layer_alpha counts three times.
        part: On the first part of them.
    """

    whole: int
    part: int = 0

    def windows(self, count: int) -> int:
        """Returns how many windows are read of a text of `count`: what the first part scored is not read again."""
        first = first_windows(count)
        return self.whole * count + (self.part - min(self.whole, self.part)) * first

    def plus(self, more: Scorings) -> Scorings:
        """Both together."""
        return Scorings(self.whole + more.whole, self.part + more.part)


SCORINGS: Final[Mapping[str, Scorings]] = {
    "group_alpha": Scorings(3, part=19),
    "global_alpha": Scorings(10),
    "layer_alpha": Scorings(46),
    "nested": Scorings(3, part=12),
}
"""Of each way that scores mixtures."""

NESTED_SCORINGS: Final[Mapping[str, Scorings]] = {
    "group_alpha": Scorings(2, part=11),
    "global_alpha": Scorings(4),
    "layer_alpha": Scorings(4),
    "nested": Scorings(0),
}
"""How many more there are where a nested student lies beside the smaller anchor."""

FILLED_CANDIDATES: Final = 5
"""How many global_alpha scores where another fill than the larger anchor's takes the place of what the smaller one lacks."""

FITTED_TEXT: Final = 3
"""How many times the calibration tokens a refit reads to fit on."""


@dataclass(frozen=True)
class InterpolateParams(Params):
    """Parameters of `interpolate`: those of the spec that the method has, see `colbuild.spec.model.mixing`.

    Attributes:
        shape: The DesNet's.
        method: The strategy.
        fill: What takes the place of what the smaller anchor lacks.
        alpha: The share of the smaller anchor.
        seed: Of a random subset.
        refit: Whether the FFN's output projections are fitted again.
        tokens: Calibration tokens, where text decides.
        split: The split of the corpus that they come from: what no anchor was trained on, where there is such text.
        fitted_split: The split that a refit is fitted on.
    """

    shape: Shape
    method: str
    fill: Literal["donor", "zero", "copy"] | None = None
    alpha: str | float | None = None
    seed: int | None = None
    refit: str = "never"
    tokens: int | None = None
    split: str | None = None
    fitted_split: str | None = None

    @property
    def text(self) -> tuple[str, int]:
        """(split, tokens) of the calibration text, for a step that reads one."""
        assert self.split is not None
        assert self.tokens is not None
        return self.split, self.tokens

    def scorings(self, *, nested: bool) -> Scorings:
        """Returns the largest number of scored mixtures."""
        if self.alpha not in (None, "auto") or self.method not in SCORINGS:
            return Scorings(0)
        if self.fill not in (None, "donor"):
            return Scorings(FILLED_CANDIDATES)
        found = SCORINGS[self.method]
        return found.plus(NESTED_SCORINGS[self.method]) if nested else found

    def texts(self, roles: Collection[str]) -> Iterable[TextNeed]:
        """See `Params`."""
        if "corpus" in roles and self.tokens is not None:
            yield TextNeed(self.tokens, WINDOW, ("tokens",), required=False)


HELD: Final[FamilyPath] = ("data", "train", "heldout")


def unread_split(data: Data) -> str:
    """The split of a corpus that no anchor is trained on, where there is one: the held-out one, or what is beside it."""
    if not data.heldout or data.split == "heldout":
        return "train"
    return "heldout"


def chosen_on_read_text(data: Data) -> bool:
    """Whether anchors are trained on all of a corpus, so that mixtures are chosen on what they know."""
    return not data.heldout or data.split == "all"


def draw(
    draft: Draft,
    member: Member,
    how: Interpolate,
    path: FamilyPath,
    ends: Mapping[str, str],
    corpus: str,
    data: Data,
) -> str:
    """Draws a DesNet between two anchors.

    Args:
        draft: Where it is drawn.
        member: The DesNet.
        how: The strategy.
        path: Where the spec asks for it.
        ends: `larger`, and `smaller` where the strategy reads it -> the step that makes it.
        corpus: The step that makes the calibration text.
        data: What that text is. Mixtures are chosen on documents that are held out, where there are any: an anchor that was
            trained for long knows its training text so well that it seems better than any mixture.
    """
    params, inputs = {"shape": asdict(member.structure.shape), **how.params()}, dict(ends)
    if how.reads_text:
        params["split"], inputs["corpus"] = unread_split(data), corpus
        if how.refit == "auto":
            params["fitted_split"] = "train" if params["split"] == "heldout" or not data.heldout else "heldout"
    places: dict[str, FamilyPath] = {key: (*path, "interpolate", key) for key in how.params()}
    return draft.add(
        Step("interpolate", member.name, params, inputs=inputs),
        {"": path, "shape": path, **places, "split": HELD, "fitted_split": HELD},
    )


def _work(params: InterpolateParams, scene: Scene) -> Work:
    made = scene.result
    disk = made.stored * parameters(made)
    if params.tokens is None:
        # A mixture that is given is written some rows at a time.
        return Work(None, disk, disk, STREAMED)
    larger = scene.model("larger")
    # A nested student is as large as the larger end.
    ends = [
        larger,
        *(scene.inputs[role] for role in ("smaller",) if role in scene.inputs),
        *([larger] if scene.nested else []),
    ]
    # Both ends as they are read, the mixture as it is stored and as it computes, and its logits.
    weights = sum(one.stored * parameters(one) for one in (made, *ends)) + FORWARD * parameters(made)
    memory = PROCESSES + weights + scored_bytes(made, FORWARD, compared=False)
    return Work(_flops(params, params.tokens, made, larger, nested=scene.nested), None, disk, memory)


def _flops(params: InterpolateParams, tokens: int, made: Structure, larger: Structure, *, nested: bool) -> int:
    """A candidate reads the text once, or its first part; a refit reads more, with the larger anchor's FFNs beside its own."""
    forward, windows = forward_flops(made, WINDOW), max(1, tokens // WINDOW)
    flops = params.scorings(nested=nested).windows(windows) * tokens // windows * forward
    if params.refit == "auto":
        flops += (1 + FITTED_TEXT) * tokens * (forward + forward_flops(larger, WINDOW))
    return flops


INTERPOLATE: Final = Operation(
    op="interpolate",
    epoch=4,
    params=InterpolateParams,
    module="colbuild.ops.interpolate",
    work=_work,
    reads={"larger": (WEIGHTS,), "smaller": (WEIGHTS,)},
    home="larger",
    made=lambda params, inputs, like: like.at(params.shape),
    flops_share=0.84,  # 186 and 188 on one of two cores, of as many candidates as there can be
    byte_share=10.0,  # a mixture that is given: mostly starting up, 1 run
    counts_as_making=True,
)
