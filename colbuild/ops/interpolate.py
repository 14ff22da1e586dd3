"""interpolate: a DesNet from the two anchors around it, without training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from colbuild.arch import Shape
from colbuild.errors import BuildError
from colbuild.ops.step_run import StepRun
from colbuild.plan.steps.interpolate import InterpolateParams
from colbuild.weights.files.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_facts,
    load_nested,
    save_checkpoint,
    write_json,
)
from colbuild.weights.mixing.alpha_search import Axes, Scored, best_of
from colbuild.weights.mixing.interpolation import Neighbours, mix, neighbours
from colbuild.weights.mixing.mixture import SUBSET, Mix
from colbuild.weights.mixing.strategies import CONTROLS, SEARCHES, Asked, Ends, asked_of, given, is_subset
from colbuild.weights.mixing.streaming import stream_mix, stream_subset
from colbuild.weights.prefix.subset import subset

FACTS: Final = "interpolation.json"
_MEASURED: Final = ("loss", "without")


def run(step: StepRun, params: InterpolateParams) -> None:
    """Makes a DesNet between two nested anchors by one of the strategies.

    Inputs: `larger`, `smaller` where the strategy reads it; `corpus` where text decides. Params: `shape`, `method`, and what
    belongs to it: `fill`, `alpha`, `seed`; `refit`; where text decides `split` and `tokens`, how many calibration tokens score
    a candidate. If the smaller anchor was cut from a nested student, which then lies beside it, mixtures with its prefix are
    candidates too.

    The output holds the model and `interpolation.json`: `best`, the mixture that was taken, `nested` where its origin is that
    prefix instead of the smaller anchor; `refit`, if that was asked for. The record of the run has the same with all candidates
    and losses, as `interpolation`. A mixture that is given is streamed, in memory for some rows of a tensor, without a loss and
    without torch.

    Raises:
        BuildError: The anchors cannot be mixed, the strategy cannot make this DesNet of them, a weight is no number, or there
            is too little text.
    """
    asked, shape = asked_of(params), params.shape
    alone, refits = asked.method in CONTROLS or is_subset(asked), params.refit == "auto"
    how = SUBSET if is_subset(asked) else None if alone else given(asked, _ends(step, shape))
    if how is not None and not refits:
        if alone:
            stream_subset(step.inputs["larger"], shape, step.output, step.reached)
        else:
            stream_mix(step.inputs["larger"], step.inputs["smaller"], shape, how, step.output, step.reached)
        _tell(step, _facts(how.to_json()))
        return
    if alone:
        part = subset if how is not None else partial(CONTROLS[asked.method], asked)
        found, facts = (
            part(load_checkpoint(step.inputs["larger"]), shape),
            _facts(None if how is None else how.to_json()),
        )
    elif how is not None:
        pair = _pair(step, shape)
        found, facts = _mixed(pair, how), _facts(how.to_json())
    else:
        found, facts = _search(step, params, asked, _pair(step, shape))
    if refits:
        from colbuild.ops.shared.refitting import refitted

        found, facts["refit"] = refitted(step, params, found)
    save_checkpoint(found, step.output, step.inputs["larger"])
    _tell(step, facts)


def _tell(step: StepRun, facts: Mapping[str, Any]) -> None:
    """Writes what was decided beside the model, and what was measured for it to the record of the run.

    Losses come out with other last digits on another number of threads; what they decide seldom does.
    """
    best, refit = facts["best"], facts.get("refit")
    decided: dict[str, Any] = {"best": None if best is None else _unmeasured(best), "tokens": facts["tokens"]}
    if refit is not None:
        decided["refit"] = _unmeasured(refit)
    write_json(step.output / FACTS, decided)
    step.note({"interpolation": facts})


def _unmeasured(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in _MEASURED}


def _ends(step: StepRun, shape: Shape) -> Ends:
    larger, smaller = (load_facts(step.inputs[role]).structure for role in ("larger", "smaller"))
    return Ends(larger, smaller, larger.at(shape))


def _pair(step: StepRun, shape: Shape) -> Neighbours:
    smaller = step.inputs["smaller"]
    return neighbours(load_checkpoint(step.inputs["larger"]), load_checkpoint(smaller), shape, load_nested(smaller))


def _mixed(pair: Neighbours, how: Mix) -> Checkpoint:
    return replace(pair.base, tensors=mix(pair, how))


def _search(
    step: StepRun, params: InterpolateParams, asked: Asked, pair: Neighbours
) -> tuple[Checkpoint, dict[str, Any]]:
    """The best of the candidates on calibration tokens, and all of their scores."""
    # Imports torch, which a mixture that is given does not need.
    from colbuild.ops.shared.mixture_scores import Scoring
    from colbuild.ops.shared.running_models import asked_of as targets_of
    from colbuild.ops.shared.running_models import choice_text, model_of
    from colbuild.train.loop.devices import forward_type

    model = model_of(pair.base, forward_type())
    windows = choice_text(step.inputs["corpus"], *params.text, model)
    targets = targets_of(step.inputs["corpus"], params.text[0], windows)
    scoring = Scoring(pair, model, windows, step.check, targets)
    search = SEARCHES[asked.method](asked, pair, scoring.slopes)
    axes = Axes(fill=pair.has_fill, depth=pair.has_depth, nested=pair.nested is not None)
    scored = search(scoring.scores, axes, step.reached)
    best = best_of(scored)
    if not math.isfinite(best.loss):
        raise BuildError(f"every mixture of the two anchors has a loss of {best.loss}: the weights of one are damaged")
    return _mixed(pair, best.mix), _facts(_scored(best), scored, windows[:, 1:].numel())


def _scored(entry: Scored) -> dict[str, Any]:
    return {**entry.mix.to_json(), "loss": entry.loss, **({"part": True} if entry.part else {})}


def _facts(best: dict[str, Any] | None, scored: Sequence[Scored] = (), tokens: int = 0) -> dict[str, Any]:
    """What is told beside the model."""
    return {"best": best, "candidates": [_scored(entry) for entry in scored], "tokens": tokens}
