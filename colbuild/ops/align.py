"""align: a public checkpoint in the coordinates of its teacher."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from colbuild.arch.files.model_files import TOKENIZER
from colbuild.errors import BuildError
from colbuild.ops.shared.running_models import calibration, model_of
from colbuild.ops.step_run import StepRun
from colbuild.plan.steps.align import AlignParams
from colbuild.train.loop.devices import forward_type
from colbuild.weights.align.alignment import align, check_alignable
from colbuild.weights.files.checkpoint import load_checkpoint, load_facts, save_checkpoint
from colbuild.weights.prefix.importance import measure_importance


def run(step: StepRun, params: AlignParams) -> None:
    """Matches a checkpoint's parts to its teacher's; what it computes stays as it is.

    Inputs: `model`, the checkpoint; `teacher`, ordered; `corpus`. Params: `shape`, `align`, `split`, and `tokens`, the
    calibration tokens on which parts are compared. The output is a model that an anchor starts from.

    Raises:
        BuildError: The checkpoint has another shape, architecture or vocabulary than it should have, it cannot be aligned in
            this way, a weight is no number, or there is too little text.
    """
    folder, above, how = step.inputs["model"], step.inputs["teacher"], params.align
    shape, found = params.shape, load_facts(folder).structure
    check_alignable(found, load_facts(above).structure, how)
    if found.shape != shape:
        own = found.shape
        raise BuildError(
            f"the checkpoint's shape is {own}, and the anchor's is {shape}",
            hint=f"write shape: {{layers: {own.layers}, hidden: {own.hidden}, ffn: {own.ffn}, heads: {own.heads}, "
            f"kv_heads: {own.kv_heads}}}",
        )
    check_same_words(folder, above)
    candidate, predecessor = load_checkpoint(folder), load_checkpoint(above)
    model, teacher = (model_of(one, forward_type()) for one in (candidate, predecessor))
    windows = calibration(step.inputs["corpus"], params.split, params.tokens, teacher)[:, :-1]
    aligned = align(candidate, model, predecessor, teacher, windows, how)
    importance = measure_importance(model_of(aligned, forward_type()), aligned.structure, windows, step.reached)
    lineage = replace(aligned.ordered, residual=importance.residual, heads=importance.groups)
    save_checkpoint(replace(aligned, lineage=lineage), step.output, above)


def check_same_words(folder: Path, above: Path) -> None:
    """Two vocabularies of one size may still be two."""
    files = [one / TOKENIZER for one in (folder, above)]
    if not all(path.exists() for path in files):
        return
    ours, theirs = (json.loads(path.read_text(encoding="utf-8")).get("model", {}).get("vocab") for path in files)
    if ours != theirs:
        raise BuildError(
            "the two models' tokenizers have the same number of tokens, but other tokens",
            hint="use a bridge to go from one vocabulary to another",
        )
