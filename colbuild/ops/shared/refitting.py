"""Refits a DesNet's FFN output projections, and keeps the refit if it lowers the loss on validation text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from colbuild.ops.shared.running_models import asked_of, calibration, choice_text, model_of, text_before_choice
from colbuild.ops.step_run import StepRun
from colbuild.plan.steps.interpolate import FITTED_TEXT, InterpolateParams
from colbuild.train.loop.devices import forward_type
from colbuild.train.watching.measure import mean_loss
from colbuild.weights.files.checkpoint import Checkpoint, load_checkpoint
from colbuild.weights.mixing.refit import refit


def refitted(step: StepRun, params: InterpolateParams, made: Checkpoint) -> tuple[Checkpoint, dict[str, Any]]:
    """A DesNet, refitted to the larger anchor where that lowers its loss.

    It is fitted on training text, `FITTED_TEXT` times the `tokens` that score a mixture; the text that mixtures are chosen on
    decides whether it is kept.

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
    corpus = step.inputs["corpus"]
    decides = choice_text(corpus, split, tokens, model)
    windows = _fitted_text(corpus, split, tokens, model)
    if not len(windows):
        return made, _untouched("the text makes one window, which cannot be fitted and decided on")
    targets = asked_of(corpus, split, decides)
    without = mean_loss(model, decides, step.check, targets)
    layers = [larger.ordered.layers.index(layer) for layer in made.ordered.layers]
    wider = model_of(larger, forward_type())
    fitted = refit(model, made.structure, wider, layers, windows[:, :-1], step.reached)
    loss = mean_loss(model, decides, step.check, targets)
    kept = loss < without
    facts = {"kept": kept, "loss": loss, "without": without, "tokens": windows[:, 1:].numel()}
    if not kept:
        return made, facts
    changed = {name: tensor.to(made.tensors[name].dtype) for name, tensor in fitted.items()}
    return replace(made, tensors={**made.tensors, **changed}), facts


def _fitted_text(corpus: Path, split: str, tokens: int, model: PreTrainedModel) -> torch.Tensor:
    """Training text, and none of the text that decides."""
    wanted = FITTED_TEXT * tokens
    if split == "train":
        return text_before_choice(corpus, split, tokens, wanted, model)
    return calibration(corpus, "train", wanted, model)


def _untouched(reason: str) -> dict[str, Any]:
    return {"kept": False, "reason": reason}
