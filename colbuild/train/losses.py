"""What a student is trained to do: follow its teacher's distribution and the text itself.

`distillation_loss` is the definition, over whole logits. `chunked_distillation_loss` is the same value and gradient straight
from hidden states, a chunk of tokens at a time: the logits [tokens, vocabulary] of student and teacher, the memory peak of
distilling a small model, never exist as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from colbuild.train.divergences import DIVERGENCES
from colbuild.train.forward import CHUNK_TOKENS


@dataclass(frozen=True)
class LossWeights:
    """kd * divergence from the teacher at a temperature + ce * cross-entropy with the text, both in nats per token.

    Attributes:
        kd: Weight of the divergence.
        ce: Weight of the text.
        temperature: Softens both distributions; the divergence is multiplied by its square.
        divergence: A key of `DIVERGENCES`.
        skew: The mixture's share of the distribution that is compared with it; the skewed ones alone have it.
    """

    kd: float
    ce: float
    temperature: float = 1.0
    divergence: str = "forward_kl"
    skew: float = 0.0


@dataclass(frozen=True)
class TeacherView:
    """What the teacher knows of the tokens: its final hidden states [tokens, hidden] and its head [vocabulary, hidden]."""

    hidden: torch.Tensor
    head: torch.Tensor


def distillation_loss(
    student: torch.Tensor, teacher: torch.Tensor, targets: torch.Tensor, weights: LossWeights
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A divergence of `DIVERGENCES`, times T squared, mixed with cross-entropy.

    Args:
        student: Logits [tokens, vocabulary].
        teacher: Logits [tokens, vocabulary].
        targets: The tokens that follow, [tokens].
        weights: How the parts are mixed.

    Returns:
        (loss, divergence, cross-entropy), each the mean over tokens.
    """
    scale = weights.temperature
    log_teacher = functional.log_softmax(teacher / scale, dim=-1)
    log_student = functional.log_softmax(student / scale, dim=-1)
    tokens = DIVERGENCES[weights.divergence].dense(log_student, log_teacher, weights.skew)
    divergence = tokens.mean() * scale**2
    entropy = functional.cross_entropy(student, targets)
    return weights.kd * divergence + weights.ce * entropy, divergence, entropy


def chunked_distillation_loss(
    hidden: torch.Tensor, head: torch.Tensor, teacher: TeacherView, targets: torch.Tensor, weights: LossWeights
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`distillation_loss` of the logits `hidden @ head.T`, in memory for one chunk of tokens.

    Args:
        hidden: The student's final hidden states [tokens, hidden].
        head: The student's head [vocabulary, hidden].
        teacher: The same of the teacher.
        targets: The tokens that follow, [tokens].
        weights: How the parts are mixed.

    Returns:
        (loss, divergence, cross-entropy); only the loss carries a gradient, to `hidden` and `head`.
    """
    loss, divergence, entropy = _ChunkedLoss.apply(hidden, head, teacher, targets, weights)  # type: ignore[no-untyped-call]
    return loss, divergence, entropy


class _ChunkedLoss(torch.autograd.Function):
    """The gradient by the logits has a closed form, so it is made in the forward pass while the chunk is at hand.

    d/dz = kd T dD/du + ce (softmax(z) - onehot), with u = z/T and dD/du as `Divergence.closed` has it.
    """

    @staticmethod
    def forward(
        context: Any,
        hidden: torch.Tensor,
        head: torch.Tensor,
        teacher: TeacherView,
        targets: torch.Tensor,
        weights: LossWeights,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        count = hidden.shape[0]
        accurate = torch.promote_types(hidden.dtype, torch.float32)
        grad_hidden = torch.empty_like(hidden)
        grad_head = torch.zeros_like(head, dtype=accurate)
        divergence = torch.zeros((), dtype=torch.float64)
        entropy = torch.zeros((), dtype=torch.float64)
        for start in range(0, count, CHUNK_TOKENS):
            part = slice(start, start + CHUNK_TOKENS)
            student_logits = (hidden[part] @ head.T).to(accurate)
            teacher_logits = (teacher.hidden[part] @ teacher.head.T).to(accurate)
            apart, ce, gradient = _chunk(student_logits, teacher_logits, targets[part], weights)
            divergence += apart.double().cpu()
            entropy += ce.double().cpu()
            gradient = gradient.div_(count).to(hidden.dtype)
            grad_hidden[part] = gradient @ head
            grad_head += gradient.T @ hidden[part]
        context.save_for_backward(grad_hidden, grad_head.to(head.dtype))
        divergence, entropy = divergence / count, entropy / count
        loss = (weights.kd * divergence + weights.ce * entropy).to(hidden.device)
        context.mark_non_differentiable(divergence, entropy)
        return loss, divergence, entropy

    @staticmethod
    def backward(context: Any, *outer: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grad_hidden, grad_head = context.saved_tensors
        # A plain number: as a bf16 tensor, a third of a batch would weigh 0.2% too much.
        scale = outer[0].item()
        return grad_hidden * scale, grad_head * scale, None, None, None


def _chunk(
    student: torch.Tensor, teacher: torch.Tensor, targets: torch.Tensor, weights: LossWeights
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sums of divergence and cross-entropy over a chunk, and the gradient of the weighted loss by the student's logits."""
    scale = weights.temperature
    log_teacher = functional.log_softmax(teacher / scale, dim=-1)
    log_student = functional.log_softmax(student / scale, dim=-1)
    apart, gradient = DIVERGENCES[weights.divergence].closed(log_student, log_teacher, weights.skew)
    # In place: each tensor is a chunk's logits, and these are the memory peak.
    gradient.mul_(weights.kd * scale)
    plain = log_student if scale == 1.0 else functional.log_softmax(student, dim=-1)
    ce = functional.nll_loss(plain, targets, reduction="sum")
    gradient.add_(plain.exp(), alpha=weights.ce)
    rows = torch.arange(targets.shape[0], device=targets.device)
    gradient[rows, targets] -= weights.ce
    return apart * scale**2, ce, gradient
