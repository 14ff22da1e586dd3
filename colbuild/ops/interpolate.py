"""interpolate: a DesNet made of the two anchors around it, with no training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from colbuild.arch import Shape
from colbuild.errors import BuildError
from colbuild.ops.models import build_model, calibration, forward_type
from colbuild.ops.scoring import Scoring
from colbuild.ops.step import StepRun
from colbuild.weights.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_facts,
    load_nested,
    save_checkpoint,
    write_json,
)
from colbuild.weights.interpolate import mix, neighbours
from colbuild.weights.search import Axes, Scored, best_of
from colbuild.weights.strategies import CONTROLS, SEARCHES, Asked, Ends, asked_of, given
from colbuild.weights.stream import stream_mix


def run(step: StepRun) -> None:
    """Makes a DesNet between two nested anchors by one of the strategies.

    Inputs: `larger`, `smaller`; `corpus` where mixtures are scored. Params: `shape`, `method`, and what belongs to it: `fill`,
    `alpha`, `seed`; for scoring `split` and `tokens`, how many calibration tokens score a candidate. If the smaller anchor was
    cut from a nested student, which then lies beside it, mixtures with that one's prefix are candidates too.

    The output holds the model and `interpolation.json`: `best`, the mixture that was taken, and every candidate with its loss,
    `nested` where its origin is that prefix instead of the smaller anchor. A mixture that is given is streamed, in memory for
    some rows of a tensor, and has no loss.
    """
    asked, shape = asked_of(step.params), Shape(**step.params["shape"])
    if asked.method in CONTROLS:
        above = step.inputs["larger"]
        save_checkpoint(CONTROLS[asked.method](asked, load_checkpoint(above), shape), step.output, above)
        _tell(step, None, (), 0)
        return
    larger, smaller = (load_facts(step.inputs[role]).structure for role in ("larger", "smaller"))
    how = given(asked, Ends(larger, smaller, larger.at(shape)))
    if how is None:
        _search(step, asked, shape)
        return
    stream_mix(step.inputs["larger"], step.inputs["smaller"], shape, how, step.output, step.report)
    _tell(step, how.to_json(), (), 0)


def _search(step: StepRun, asked: Asked, shape: Shape) -> None:
    """Scores candidates on calibration tokens and keeps the best."""
    smaller = step.inputs["smaller"]
    pair = neighbours(load_checkpoint(step.inputs["larger"]), load_checkpoint(smaller), shape, load_nested(smaller))
    base = pair.base
    model = build_model(base.config, base.tensors, dtype=forward_type())
    windows = calibration(step.inputs["corpus"], step.params["split"], step.params["tokens"], model)
    scoring = Scoring(pair, model, windows)
    search = SEARCHES[asked.method](asked, pair, scoring.slopes)
    axes = Axes(fill=pair.has_fill, depth=pair.has_depth, nested=pair.nested is not None)
    scored = search(scoring.loss, axes, step.report)
    best = best_of(scored)
    if not math.isfinite(best.loss):
        raise BuildError(f"every mixture of the two anchors has a loss of {best.loss}: the weights of one are damaged")
    found = Checkpoint(base.config, base.structure, mix(pair, best.mix), base.lineage)
    save_checkpoint(found, step.output, step.inputs["larger"])
    _tell(step, _scored(best), scored, windows[:, 1:].numel())


def _scored(entry: Scored) -> dict[str, Any]:
    return {**entry.mix.to_json(), "loss": entry.loss}


def _tell(step: StepRun, best: dict[str, Any] | None, scored: Sequence[Scored], tokens: int) -> None:
    candidates = [_scored(entry) for entry in scored]
    write_json(step.output / "interpolation.json", {"best": best, "candidates": candidates, "tokens": tokens})
