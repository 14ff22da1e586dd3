"""The start of a bridge to another architecture: matching parts are copied, the others are fitted on text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import torch
from transformers import PreTrainedModel

from colbuild.arch import Role, Structure, stream_readers, tensors
from colbuild.arch.correspondence import approximations, copies_blocks
from colbuild.ops.shared.running_models import build_model, model_of
from colbuild.progress import Report
from colbuild.train.watching.measure import mean_loss
from colbuild.weights.bridge.follow import follow, streams
from colbuild.weights.bridge.foreign_norms import fit_norms, inverse_lengths
from colbuild.weights.bridge.learned_positions import read_rotary, write_positions
from colbuild.weights.bridge.transplant import inner_model, transplant_body
from colbuild.weights.files.checkpoint import Checkpoint
from colbuild.weights.prefix.captured import collect
from colbuild.weights.prefix.subset import kept_layers

_TINY: Final = 1e-3

_DECIDING: Final = 5
"""One of so many calibration windows decides how sure of itself a fitted model is; the others fit it."""

_SHARES: Final = (1.0, 0.85, 0.7, 0.6, 0.5, 0.35, 0.25, 0.15, 0.1, 0.05)
"""Of its last norm: the next is tried as long as the one before was better. A model that says hardly anything is no worse than
one that guesses."""

_INSIDE: Final = frozenset({Role.HEAD_NORM, Role.BRANCH_NORM})
"""Norms that some architectures have beside those of the residual stream."""


def transplanted(
    teacher: Checkpoint,
    body: Structure,
    config: Mapping[str, object],
    seed: int,
    read: Callable[[], torch.Tensor],
    report: Report,
    asked: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> dict[str, torch.Tensor]:
    """The weights of a bridge that has the AnsNet's vocabulary still, fitted on text where parts do not correspond.

    Args:
        teacher: The AnsNet, ordered.
        body: What the bridge is, with the AnsNet's vocabulary.
        config: Its config.json.
        seed: Decides what is drawn at random.
        read: Gives windows [windows, length + 1] of text in the AnsNet's tokens; asked only where something is fitted.
        report: Told how far the fit is.
        asked: Windows -> their targets [windows, length]; by default each token after the first.

    Raises:
        BuildError: The bridge has no place for a bias that nothing makes up for.
    """
    theirs, ours = ({tensor.role for tensor in tensors(one)} for one in (teacher.structure, body))
    alike = copies_blocks(teacher.structure, body)
    if not approximations(teacher.structure, body):
        return transplant_body(teacher, body, seed)
    text = read()
    # What is fitted is not what decides; of a single window there is nothing to keep apart.
    deciding = len(text) // _DECIDING
    windows = text[: len(text) - deciding, :-1]
    lengths: dict[str, torch.Tensor] = {}
    if _INSIDE & (theirs - ours):
        inner = inner_model(teacher, body)
        lengths = inverse_lengths(model_of(inner, torch.float32), inner.structure, _INSIDE & (theirs - ours), windows)
    weights = transplant_body(teacher, body, seed, lengths)
    model = build_model(config, weights, dtype=torch.float32)
    wanted, free = [], None
    if not alike:
        whole = build_model(teacher.config, teacher.tensors, dtype=torch.float32)
        layers = kept_layers(teacher.ordered, min(body.shape.layers, teacher.structure.shape.layers))
        seen = collect(whole, teacher.structure, windows)
        beside = teacher.tensors if getattr(whole.config, "use_parallel_residual", False) else None
        wanted = streams(seen, teacher.structure, layers, body.shape.hidden, beside)
        if Role.NORM_BIAS in theirs - ours:
            wanted = _without_means(wanted, model, teacher, body)
        reads = [seen.read[norm] for norm in _before(teacher.structure, layers)]
        free = _with_distances(dict(model.named_parameters()), body, teacher, reads)
    foreign = _INSIDE & (ours - theirs)
    if alike:
        fit_norms(model, body, foreign, windows)
    else:
        follow(model, body, wanted, windows, report, free, foreign)
    if deciding:
        calm(model, body, text[-deciding:], None if asked is None else asked(text[-deciding:]))
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


def _without_means(
    wanted: Sequence[torch.Tensor], model: PreTrainedModel, teacher: Checkpoint, body: Structure
) -> list[torch.Tensor]:
    """The streams for norms that neither take the mean off nor add a bias.

    The last LayerNorm w (x - mean) / s + b is w times x - mean + s b / w, which the last stream shall be, divided by s. The
    length of that takes the place of s, so the last norm is made as much larger, in place.
    """
    centred = [stream - stream.mean(dim=1, keepdim=True) for stream in wanted]
    last = stream_readers(teacher.structure)[-1]
    weight, bias = (
        teacher.tensors[name][: body.shape.hidden].float() for name in (last, last.replace(".weight", ".bias"))
    )
    spread = centred[-1].square().mean(dim=1, keepdim=True).sqrt()
    centred[-1] = centred[-1] + spread * bias / torch.where(weight.abs() < _TINY, _TINY, weight)
    longer = (centred[-1].square().mean(dim=1, keepdim=True).sqrt() / spread.clamp_min(_TINY)).mean()
    ours, offset = model.get_parameter(stream_readers(body)[-1]), body.architecture.norm_offset
    ours.copy_((ours + offset) * longer - offset)
    return centred


def _before(structure: Structure, layers: Sequence[int]) -> list[str]:
    """The norms before the attention of some layers."""
    norms = stream_readers(structure)
    return [norms[2 * layer] for layer in layers]


def calm(
    model: PreTrainedModel, structure: Structure, windows: torch.Tensor, targets: torch.Tensor | None = None
) -> None:
    """Makes a model as sure of itself as it should be: its last norm, in place, smaller as text [windows, length + 1] says.

    What imitates features that it does not have is wrong more often than it knows. `targets` are as for `mean_loss`.
    """
    weights = dict(model.named_parameters())
    last = stream_readers(structure)[-1]
    offset = structure.architecture.norm_offset
    bias = last.replace(".weight", ".bias")
    parts = [(weights[name], more) for name, more in ((last, offset), (bias, 0.0)) if name in weights]
    whole = [part + more for part, more in parts]

    def at(share: float) -> None:
        for (part, more), before in zip(parts, whole, strict=True):
            part.copy_(before * share - more)

    losses: dict[float, float] = {}
    for share in _SHARES:
        at(share)
        losses[share] = mean_loss(model, windows, targets=targets)
        if losses[share] > min(losses.values()):
            break
    at(min(losses, key=losses.__getitem__))
