"""bridge: anchor zero of a family, in another architecture or vocabulary, distilled from the AnsNet once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import PreTrainedConfig

from colbuild.arch import Role, Structure, tensors
from colbuild.arch.files.model_files import LICENCES
from colbuild.arch.files.model_folder import SPECIAL_IDS
from colbuild.ops.corpus.tokens import load_vocabulary
from colbuild.ops.shared.bridge_config import bridge_config
from colbuild.ops.shared.bridge_start import transplanted
from colbuild.ops.shared.running_models import calibration
from colbuild.ops.shared.student_training import train_checkpoint
from colbuild.ops.shared.training_task import Task
from colbuild.ops.source.settled_beginning import write_beginning
from colbuild.ops.step_run import StepRun
from colbuild.ops.tokenizer import special_ids
from colbuild.plan.steps.bridge import BridgeParams
from colbuild.plan.workload.training import steered
from colbuild.train.across.aligned_text import Reader
from colbuild.train.across.spelling import read_spelling
from colbuild.train.across.vocabularies import events, nearest_tokens
from colbuild.train.loop.teaching import Across
from colbuild.weights.bridge.transplant import compose, random_start, transplant_rows
from colbuild.weights.files.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from colbuild.weights.files.origin import ORIGIN, copy_files
from colbuild.weights.files.transformers_config import transformers_config


def run(step: StepRun, params: BridgeParams) -> None:
    """Starts the bridge and trains it.

    Inputs: `teacher` (the AnsNet, ordered if anything is transplanted), `tokenizer` (a folder with the family's; the AnsNet's
    own if they share it), `corpus` in its tokens; `calibration`, text in the AnsNet's tokens, for a transplant; `lessons` where
    the recipe says `teacher: cached`. Params: `structure`, `start`, `recipe`, `split`; `positions` if asked for; `tokens`, how
    many to fit a transplant on.

    With one vocabulary it learns as an anchor does. Across two, by what `loss.across` says
    (`colbuild.train.across.across_losses`).

    Raises:
        BuildError: As any training; or the two tokenizers cannot be aligned.
    """
    teacher = load_checkpoint(step.inputs["teacher"])
    structure, split = params.structure, params.split
    recipe = steered(params.recipe, step.settings)
    readers = None if recipe.loss.across is None else _readers(step)
    with torch.no_grad():
        start = _start(step, params, teacher, readers)

    def keep(weights: Mapping[str, torch.Tensor]) -> None:
        save_checkpoint(replace(start, tensors=weights), step.output, step.inputs["tokenizer"])
        copy_files((ORIGIN, *LICENCES), step.inputs["teacher"], step.output)
        write_beginning(step.output)

    # An ordered teacher's layers are other layers than those of what it is distilled into.
    whole = replace(teacher, lineage=None)
    if readers is None:
        train_checkpoint(Task(start, whole, recipe, step, split), keep)
    elif params.by_text:
        train_checkpoint(Task(start, whole, recipe, step, split, by_text=True), keep)
    else:
        across = _across(readers, structure.shape.vocab, teacher.structure.shape.vocab, recipe.loss.across)
        train_checkpoint(Task(start, whole, recipe, step, split, across=across), keep)


Readers = tuple[Reader, Reader]
"""How the bridge reads, and how the AnsNet does."""


def _readers(step: StepRun) -> Readers:
    ours, theirs = (_reader(step.inputs[role]) for role in ("tokenizer", "teacher"))
    return ours, theirs


def _reader(folder: Path) -> Reader:
    vocabulary = load_vocabulary(folder)
    return Reader(read_spelling(folder), vocabulary.separator, vocabulary.begin)


def _across(readers: Readers, rows: int, teacher_rows: int, loss: str | None) -> Across:
    ours, theirs = readers
    project = nearest_tokens if loss == "mined" else events
    separators = (ours.separator, theirs.separator)
    return Across(
        ours, theirs, project(ours.spelling, theirs.spelling, (rows, teacher_rows), separators), loss or "alm"
    )


# -- where it starts --------------------------------------------------------------------------------------------------


def _start(step: StepRun, params: BridgeParams, teacher: Checkpoint, readers: Readers | None) -> Checkpoint:
    structure, seed = params.structure, params.recipe.seed
    config = bridge_config(teacher, structure, params.positions)
    if readers is not None:
        own = special_ids(step.inputs["tokenizer"])
        config |= dict.fromkeys(SPECIAL_IDS) | own
    dtype = next(iter(teacher.tensors.values())).dtype
    if params.start == "random":
        weights = random_start(structure, seed)
    else:
        body = structure.at(replace(structure.shape, vocab=teacher.structure.shape.vocab))
        settings = {**config, "vocab_size": body.shape.vocab}
        weights = transplanted(teacher, body, settings, seed, lambda: _text(step, params, settings), step.reached)
        if readers is not None:
            weights = _with_vocabulary(weights, structure, readers)
    return Checkpoint(config, structure, {name: tensor.to(dtype).contiguous() for name, tensor in weights.items()})


@dataclass(frozen=True)
class _Described:
    """A model of which nothing but its configuration is there yet."""

    config: PreTrainedConfig


def _text(step: StepRun, params: BridgeParams, config: Mapping[str, object]) -> torch.Tensor:
    """Calibration windows in the AnsNet's tokens, as long as the bridge can read."""
    described = _Described(transformers_config(config))
    assert params.tokens is not None  # a transplant has them
    return calibration(step.inputs["calibration"], params.split, params.tokens, described)


def _with_vocabulary(
    weights: dict[str, torch.Tensor], structure: Structure, readers: Readers
) -> dict[str, torch.Tensor]:
    """The embedding, and the head if it has its own, in the family's tokens."""
    ours, theirs = readers
    shared = {
        index: theirs.spelling.special[name]
        for name, index in ours.spelling.special.items()
        if name in theirs.spelling.special
    }
    shared |= zip(ours.begin, theirs.begin or (theirs.separator,) * len(ours.begin), strict=False)
    shared[ours.separator] = theirs.separator
    parts = compose(ours.spelling, theirs.spelling, structure.shape.vocab, shared)
    tables = [tensor.name for tensor in tensors(structure) if tensor.role in (Role.EMBEDDING, Role.HEAD)]
    return {**weights, **{name: transplant_rows(weights[name], parts) for name in tables}}
