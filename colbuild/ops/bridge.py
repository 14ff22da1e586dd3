"""bridge: anchor zero of a family, of another architecture or vocabulary than the AnsNet, distilled from it once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import torch
from transformers import PreTrainedModel

from colbuild.arch import ARCHITECTURES, Role, Structure, structure_from_json, tensors
from colbuild.ops.bridge_config import bridge_config
from colbuild.ops.corpus.tokens import load_vocabulary
from colbuild.ops.models import build_model, calibration
from colbuild.ops.step import StepRun
from colbuild.ops.tokenizer import special_ids
from colbuild.ops.training import Task, steered_recipe, train_checkpoint
from colbuild.train.crossing import Reader
from colbuild.train.measure import mean_loss
from colbuild.train.spelling import read_spelling
from colbuild.train.teaching import Across
from colbuild.train.vocabularies import events, nearest_tokens
from colbuild.weights.activations import collect, residual_norms
from colbuild.weights.blocks import GATED
from colbuild.weights.checkpoint import SPECIAL_IDS, Checkpoint, load_checkpoint, save_checkpoint
from colbuild.weights.follow import follow, streams
from colbuild.weights.foreign_norms import fit_norms
from colbuild.weights.origin import LICENCES, ORIGIN, copy_files
from colbuild.weights.positions import read_rotary, write_positions
from colbuild.weights.subset import kept_layers
from colbuild.weights.transplant import compose, random_start, transplant_body, transplant_rows

WITHOUT_TEACHER: Final = "seqkd"

_DECIDING: Final = 5
"""One of so many calibration windows decides how sure of itself a fitted model is; the others fit it."""

_SHARES: Final = (1.0, 0.85, 0.7, 0.6, 0.5)


def run(step: StepRun) -> None:
    """Starts the bridge and trains it.

    Inputs: `teacher` (the AnsNet, ordered if anything is transplanted), `tokenizer` (a folder with the family's; the AnsNet's
    own if they share it), `corpus` in its tokens; `calibration`, text in the AnsNet's tokens, for a transplant; `lessons` where
    the recipe says `teacher: cached`. Params: `structure`, `start`, `recipe`, `split`; `positions` if asked for; `tokens`, how
    many to fit a transplant on.

    With one vocabulary it learns as an anchor does. Across two, by what `loss.across` says (`colbuild.train.across`).

    Raises:
        BuildError: As any training; or the two tokenizers cannot be aligned.
    """
    teacher = load_checkpoint(step.inputs["teacher"])
    structure = structure_from_json(step.params["structure"], ARCHITECTURES)
    recipe = steered_recipe(step)
    readers = _readers(step) if "across" in step.params["recipe"]["loss"] else None
    with torch.no_grad():
        start = _start(step, teacher, structure, readers)

    def keep(weights: Mapping[str, torch.Tensor]) -> None:
        save_checkpoint(replace(start, tensors=weights), step.output, step.inputs["tokenizer"])
        copy_files((ORIGIN, *LICENCES), step.inputs["teacher"], step.output)

    # An ordered teacher's layers are other layers than those of what it is distilled into.
    whole = replace(teacher, lineage=None)
    if readers is None:
        train_checkpoint(Task(start, whole, recipe, step), keep)
    elif recipe.loss.across == WITHOUT_TEACHER:
        train_checkpoint(Task(start, whole, recipe, step, by_text=True), keep)
    else:
        across = _across(readers, structure.shape.vocab, teacher.structure.shape.vocab, recipe.loss.across)
        train_checkpoint(Task(start, whole, recipe, step, across=across), keep)


Readers = tuple[Reader, Reader]
"""How the bridge reads, and how the AnsNet does."""


def _readers(step: StepRun) -> Readers:
    ours, theirs = (
        Reader(read_spelling(folder), load_vocabulary(folder).separator)
        for folder in (step.inputs["tokenizer"], step.inputs["teacher"])
    )
    return ours, theirs


def _across(readers: Readers, rows: int, teacher_rows: int, loss: str | None) -> Across:
    ours, theirs = readers
    project = nearest_tokens if loss == "mined" else events
    separators = (ours.separator, theirs.separator)
    return Across(
        ours, theirs, project(ours.spelling, theirs.spelling, (rows, teacher_rows), separators), loss or "alm"
    )


# -- where it starts --------------------------------------------------------------------------------------------------


def _start(step: StepRun, teacher: Checkpoint, structure: Structure, readers: Readers | None) -> Checkpoint:
    seed: int = step.params["recipe"]["seed"]
    config = bridge_config(teacher, structure, step.params.get("positions"))
    if readers is not None:
        own = special_ids(step.inputs["tokenizer"])
        config |= dict.fromkeys(SPECIAL_IDS) | own
    dtype = next(iter(teacher.tensors.values())).dtype
    if step.params["start"] == "random":
        weights = random_start(structure, seed)
    else:
        weights = _transplanted(step, teacher, structure, config, seed)
        if readers is not None:
            weights = _with_vocabulary(weights, structure, readers)
    return Checkpoint(config, structure, {name: tensor.to(dtype).contiguous() for name, tensor in weights.items()})


def _transplanted(
    step: StepRun, teacher: Checkpoint, structure: Structure, config: dict[str, object], seed: int
) -> dict[str, torch.Tensor]:
    """The body, still with the AnsNet's vocabulary, fitted on text in its tokens where parts do not correspond."""
    body = structure.at(replace(structure.shape, vocab=teacher.structure.shape.vocab))
    weights = transplant_body(teacher, body, seed)
    theirs = {tensor.role for tensor in tensors(teacher.structure)}
    foreign = {Role.HEAD_NORM, Role.BRANCH_NORM} & {tensor.role for tensor in tensors(body)} - theirs
    alike = _kind(structure) == _kind(teacher.structure)
    if alike and not foreign:
        return weights
    model = build_model({**config, "vocab_size": body.shape.vocab}, weights, dtype=torch.float32)
    text = calibration(step.inputs["calibration"], step.params["split"], step.params["tokens"], model)
    # What is fitted is not what decides; of a single window there is nothing to keep apart.
    deciding = len(text) // _DECIDING
    windows = text[: len(text) - deciding, :-1]
    wanted, free = [], None
    if not alike:
        whole = build_model(teacher.config, teacher.tensors, dtype=torch.float32)
        layers = kept_layers(teacher.ordered, min(body.shape.layers, teacher.structure.shape.layers))
        seen = collect(whole, teacher.structure, windows)
        wanted = streams(seen, teacher.structure, layers, body.shape.hidden)
        reads = [seen.read[norm] for norm in _before(teacher.structure, layers)]
        free = _with_distances(dict(model.named_parameters()), body, teacher, reads)
    if foreign:
        fit_norms(model, body, foreign, windows)
    if not alike:
        follow(model, body, wanted, windows, step.reached, free)
        if deciding:
            calm(model, body, text[-deciding:])
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def _with_distances(
    weights: dict[str, torch.Tensor], body: Structure, teacher: Checkpoint, reads: Sequence[torch.Tensor]
) -> int | None:
    """Gives a model with learned positions the distances that a rotary one tells, as far as they correspond.

    Returns how many channels of the stream are free for all else; None where there is nothing to give.
    """
    rotary = read_rotary(teacher.config, teacher.structure.shape.head_dim)
    learned = any(tensor.role is Role.POSITION for tensor in tensors(body))
    if rotary is None or not learned or body.shape.head_dim != teacher.structure.shape.head_dim:
        return None
    return write_positions(weights, body, rotary, [read[:, : body.shape.hidden] for read in reads])


def _before(structure: Structure, layers: Sequence[int]) -> list[str]:
    """The norms before the attention of some layers."""
    norms = residual_norms(structure)
    return [norms[2 * layer] for layer in layers]


def calm(model: PreTrainedModel, structure: Structure, windows: torch.Tensor) -> None:
    """Makes a model as sure of itself as it should be: its last norm, in place, smaller as text [windows, length + 1] says.

    What imitates features that it does not have is wrong more often than it knows.
    """
    weights = dict(model.named_parameters())
    last = residual_norms(structure)[-1]
    parts = [weights[name] for name in (last, last.replace(".weight", ".bias")) if name in weights]
    whole = [part.clone() for part in parts]
    losses = {}
    for share in _SHARES:
        for part, before in zip(parts, whole, strict=True):
            part.copy_(before * share)
        losses[share] = mean_loss(model, windows)
    best = min(losses, key=losses.__getitem__)
    for part, before in zip(parts, whole, strict=True):
        part.copy_(before * best)


def _kind(structure: Structure) -> str:
    """What architectures have in common that copy each other's blocks as they are."""
    name = structure.architecture.name
    return "gated" if name in GATED else name


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
    shared[ours.separator] = theirs.separator
    parts = compose(ours.spelling, theirs.spelling, structure.shape.vocab, shared)
    tables = [tensor.name for tensor in tensors(structure) if tensor.role in (Role.EMBEDDING, Role.HEAD)]
    return {**weights, **{name: transplant_rows(weights[name], parts) for name in tables}}
