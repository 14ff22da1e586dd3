"""Refits a DesNet's FFN output projections, and keeps the refit if it lowers the loss on validation text."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from colbuild.ops.shared.running_models import asked_of, calibration, model_of
from colbuild.ops.step_run import StepRun
from colbuild.plan.steps.interpolate import REFIT_TEXT, InterpolateParams
from colbuild.train.loop.devices import forward_type
from colbuild.train.watching.measure import mean_loss
from colbuild.weights.files.checkpoint import Checkpoint, load_checkpoint
from colbuild.weights.mixing.refit import refit


def refitted(step: StepRun, params: InterpolateParams, made: Checkpoint) -> tuple[Checkpoint, dict[str, Any]]:
    """A DesNet, refitted to the larger anchor where that lowers its loss.

    Of the calibration text, `REFIT_TEXT` times the `tokens` that score a mixture, the last part decides.

    Returns:
        (the DesNet, what `interpolation.json` says of it: both losses and whether the refit was `kept`, or a `reason` why
        there is nothing to fit).

    Raises:
        BuildError: The corpus has too little text.
    """
    larger = load_checkpoint(step.inputs["larger"])
    ours, theirs = made.structure.shape, larger.structure.shape
    if ours.hidden != theirs.hidden:
        return made, _untouched(f"the residual stream has {ours.hidden} channels, the larger anchor's {theirs.hidden}")
    if ours.ffn == theirs.ffn:
        return made, _untouched("the FFN is as wide as the larger anchor's")
    model = model_of(made, forward_type())
    split, tokens = params.text
    windows = calibration(step.inputs["corpus"], split, REFIT_TEXT * tokens, model)
    # A corpus of one window has nothing to decide on.
    deciding = max(1, len(windows) // REFIT_TEXT)
    if len(windows) <= deciding:
        return made, _untouched(f"'tokens: {tokens}' make one window, which cannot be fitted and decided on")
    decides = windows[-deciding:]
    targets = asked_of(step.inputs["corpus"], split, decides)
    without = mean_loss(model, decides, step.check, targets)
    layers = [larger.ordered.layers.index(layer) for layer in made.ordered.layers]
    wider = model_of(larger, forward_type())
    fitted = refit(model, made.structure, wider, layers, windows[:-deciding, :-1], step.reached)
    loss = mean_loss(model, decides, step.check, targets)
    kept = loss < without
    facts = {"kept": kept, "loss": loss, "without": without, "tokens": windows[:-deciding, 1:].numel()}
    if not kept:
        return made, facts
    changed = {name: tensor.to(made.tensors[name].dtype) for name, tensor in fitted.items()}
    return replace(made, tensors={**made.tensors, **changed}), facts


def _untouched(reason: str) -> dict[str, Any]:
    return {"kept": False, "reason": reason}
