"""order: the AnsNet with every axis sorted by importance, so that smaller models are prefixes of it."""

from __future__ import annotations

from colbuild.ops.shared.layer_ranking import rank_layers
from colbuild.ops.shared.running_models import calibration, model_of
from colbuild.ops.step_run import StepRun
from colbuild.plan.steps.order import OrderParams
from colbuild.train.loop.devices import forward_type
from colbuild.weights.files.checkpoint import load_checkpoint, save_checkpoint
from colbuild.weights.prefix.importance import measure_importance
from colbuild.weights.prefix.ordering import order


def run(step: StepRun, params: OrderParams) -> None:
    """Orders a model.

    Inputs: `model`, `corpus`. Params: `split`, and `tokens`, how many calibration tokens to look at.
    """
    folder = step.inputs["model"]
    checkpoint = load_checkpoint(folder)
    model = model_of(checkpoint, forward_type())
    windows = calibration(step.inputs["corpus"], params.split, params.tokens, model)
    importance = measure_importance(model, checkpoint.structure, windows[:, :-1], step.reached)
    ranking = rank_layers(model, checkpoint.structure, windows[:, :-1], step.reached)
    save_checkpoint(order(checkpoint, importance, ranking), step.output, folder)
