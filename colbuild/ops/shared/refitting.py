"""Refits a DesNet's FFN output projections, and keeps the refit if it lowers the loss on validation text."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from colbuild.ops.shared.running_models import asked_of, choice_text, heldout_windows, model_of, text_before_choice
from colbuild.ops.step_run import StepRun
from colbuild.plan.steps.interpolate import FITTED_TEXT, InterpolateParams
from colbuild.train.corpus.packing import open_corpus
from colbuild.train.loop.devices import forward_type
from colbuild.train.watching.measure import mean_loss
from colbuild.weights.files.checkpoint import Checkpoint, load_checkpoint
from colbuild.weights.mixing.refit import refit


def refitted(step: StepRun, params: InterpolateParams, made: Checkpoint) -> tuple[Checkpoint, dict[str, Any]]:
    """A DesNet, refitted to the larger anchor where that lowers its loss.

    It is fitted on `FITTED_TEXT` times the `tokens` that score a mixture, or as many as there are, of other text than mixtures
    are chosen on; that on which they are decides whether it is kept.

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
    corpus, other = step.inputs["corpus"], params.fitted_split or split
    if other == split:
        # A quarter decides at most, so that there is other text to fit on.
        tokens = min(tokens, open_corpus(corpus, split).tokens // (1 + FITTED_TEXT))
    decides = choice_text(corpus, split, tokens, model)
    wanted = FITTED_TEXT * tokens
    if other == split:
        windows = text_before_choice(corpus, split, tokens, wanted, model)
    else:
        windows = heldout_windows(corpus, other, wanted, model)
    if not len(windows):
        return made, _untouched("the text is one window, which cannot be fitted and decided on")
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


def _untouched(reason: str) -> dict[str, Any]:
    return {"kept": False, "reason": reason}
