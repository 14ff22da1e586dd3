"""interpolate: a DesNet made of the two anchors around it, with no training."""

from __future__ import annotations

import math
from dataclasses import asdict

import torch

from colbuild.arch import Shape
from colbuild.errors import BuildError
from colbuild.ops.models import build_model, calibration
from colbuild.ops.step import StepRun
from colbuild.train.measure import mean_loss
from colbuild.weights.checkpoint import Checkpoint, load_checkpoint, load_nested, save_checkpoint, write_json
from colbuild.weights.interpolate import Mix, mix, neighbours
from colbuild.weights.search import SEARCHES, Axes, best_of


def run(step: StepRun) -> None:
    """Interpolates between two nested anchors and keeps the best candidate.

    Inputs: `larger`, `smaller`, `corpus`. Params: `shape`, `method`, `split`, and `tokens`, how many calibration tokens score
    a candidate. If the smaller anchor was cut from a nested student, which then lies beside it, mixtures with that one's
    prefix are candidates too. The output holds the model and `interpolation.json`: every candidate with its loss, `nested`
    where its origin is that prefix instead of the smaller anchor.
    """
    smaller = step.inputs["smaller"]
    pair = neighbours(
        load_checkpoint(step.inputs["larger"]),
        load_checkpoint(smaller),
        Shape(**step.params["shape"]),
        load_nested(smaller),
    )
    base = pair.base
    model = build_model(base.config, base.tensors, dtype=torch.bfloat16)
    windows = calibration(step.inputs["corpus"], step.params["split"], step.params["tokens"], model)
    weights = dict(model.named_parameters())

    def score(how: Mix) -> float:
        with torch.no_grad():
            for name, tensor in mix(pair, how).items():
                weights[name].copy_(tensor)
        return mean_loss(model, windows)

    axes = Axes(fill=pair.has_fill, depth=pair.has_depth, nested=pair.nested is not None)
    scored = SEARCHES[step.params["method"]](score, axes, step.report)
    best = best_of(scored)
    if not math.isfinite(best.loss):
        raise BuildError(f"every mixture of the two anchors has a loss of {best.loss}: the weights of one are damaged")
    found = Checkpoint(base.config, base.structure, mix(pair, best.mix), base.lineage)
    save_checkpoint(found, step.output, step.inputs["larger"])
    write_json(
        step.output / "interpolation.json",
        {
            "best": {**asdict(best.mix), "loss": best.loss},
            "candidates": [{**asdict(entry.mix), "loss": entry.loss} for entry in scored],
            "tokens": windows[:, 1:].numel(),
        },
    )
