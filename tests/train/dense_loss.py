"""The definition of the loss, over whole logits: what the chunked one is compared with."""

from __future__ import annotations

import torch
from torch.nn import functional

from colbuild.train.batch import IGNORED
from colbuild.train.losses.divergences import DIVERGENCES, coarse_kl, sampled_kl
from colbuild.train.losses.losses import Known, LossWeights, TeacherSamples, TeacherTop


def distillation_loss(
    student: torch.Tensor, teacher: Known, targets: torch.Tensor, weights: LossWeights
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A divergence of `DIVERGENCES`, times T squared, mixed with cross-entropy.

    Args:
        student: Logits [tokens, vocabulary].
        teacher: Logits [tokens, vocabulary], or what was kept of them.
        targets: The tokens that follow, [tokens]; of those that are `IGNORED` nothing is asked.
        weights: How the parts are mixed.

    Returns:
        (loss, divergence, cross-entropy), each the mean over the tokens that are asked for; 0 where none is.
    """
    asked = torch.nonzero(targets != IGNORED).squeeze(1)
    student, targets = student[asked], targets[asked]
    count = max(1, targets.shape[0])
    scale = weights.temperature
    log_student = functional.log_softmax(student / scale, dim=-1)
    if isinstance(teacher, TeacherSamples):
        drawn = teacher.at(asked)
        tokens = sampled_kl(log_student, drawn.ids, drawn.weights, drawn.entropy)
    elif isinstance(teacher, TeacherTop):
        top = teacher.at(asked)
        tokens = coarse_kl(log_student, top.ids, top.log_likely)
    else:
        log_teacher = functional.log_softmax(teacher[asked] / scale, dim=-1)
        tokens = DIVERGENCES[weights.divergence].dense(log_student, log_teacher, weights.skew)
    divergence = tokens.sum() * scale**2 / count
    entropy = functional.cross_entropy(student, targets, reduction="sum") / count
    return weights.kd * divergence + weights.ce * entropy, divergence, entropy
