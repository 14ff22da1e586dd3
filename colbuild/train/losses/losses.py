"""The loss of a student: its teacher's distribution, and the text itself.

A divergence of `DIVERGENCES`, times T squared, mixed with cross-entropy. It is computed straight from hidden states, a chunk of
tokens at a time: the logits [tokens, vocabulary] of student and teacher, the memory peak of distilling a small model, never
exist as a whole. A test holds value and gradient to the definition over whole logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.nn import functional

from colbuild.errors import BuildError
from colbuild.plan.workload.at_once import CACHED_LOGITS, CHUNK_TOKENS
from colbuild.train.compiling import compiled_or_eager, is_compiling
from colbuild.train.fused.kernels import fits, kernels
from colbuild.train.losses.chunks import MadeInForward, Turn, in_chunks, in_parts
from colbuild.train.losses.divergences import DIVERGENCES, coarse_kl_closed, sampled_kl_closed
from colbuild.train.losses.logits_buffer import Room


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


@dataclass(frozen=True, eq=False)
class TeacherView:
    """The teacher's final hidden states [tokens, hidden] and its head [vocabulary, hidden]."""

    hidden: torch.Tensor
    head: torch.Tensor


@dataclass(frozen=True, eq=False)
class TeacherSamples:
    """Draws from the teacher's distribution at the loss's temperature; enough for `forward_kl`, without bias.

    Attributes:
        ids: Token ids [tokens, k], int64; one may be there several times.
        weights: [tokens, k]; 1 in all for a token.
        entropy: The distribution's own, in nats [tokens].
    """

    ids: torch.Tensor
    weights: torch.Tensor
    entropy: torch.Tensor

    def at(self, rows: torch.Tensor | slice) -> TeacherSamples:
        """Returns the part for some tokens."""
        return TeacherSamples(self.ids[rows], self.weights[rows], self.entropy[rows])


@dataclass(frozen=True, eq=False)
class TeacherTop:
    """The teacher's likeliest tokens at the loss's temperature: the `forward_kl` of these and of all others together.

    Attributes:
        ids: Token ids [tokens, k], int64, each once, fewer than the vocabulary has.
        log_likely: Logarithms of their probabilities and of that of all others together [tokens, k + 1].
    """

    ids: torch.Tensor
    log_likely: torch.Tensor

    def at(self, rows: torch.Tensor | slice) -> TeacherTop:
        """Returns the part for some tokens."""
        return TeacherTop(self.ids[rows], self.log_likely[rows])


Teaching = TeacherView | TeacherSamples | TeacherTop
"""What a student can follow."""

Known = torch.Tensor | TeacherSamples | TeacherTop
"""What is known of a teacher's distribution: its logits [tokens, vocabulary], or what was kept of them."""


def chunked_distillation_loss(
    hidden: torch.Tensor,
    head: torch.Tensor,
    teacher: Teaching,
    targets: torch.Tensor,
    weights: LossWeights,
    room: Room | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The loss of the logits `hidden @ head.T`, in memory for one chunk of tokens.

    Args:
        hidden: The student's final hidden states [tokens, hidden].
        head: The student's head [vocabulary, hidden].
        teacher: The same of the teacher, or what was kept of its distribution.
        targets: The tokens that follow, [tokens]; of those that are `IGNORED` nothing is asked, nor are their logits made.
        weights: How the parts are mixed.
        room: Memory of an earlier call that is used again.

    Returns:
        (loss, divergence, cross-entropy); only the loss carries a gradient, to `hidden` and `head`.

    Raises:
        BuildError: Another divergence than `forward_kl` is asked of what was kept of a distribution.
    """
    if weights.divergence != "forward_kl" and not isinstance(teacher, TeacherView):
        raise BuildError(
            f"{weights.divergence} needs the teacher's whole distribution; a cached part gives a biased gradient",
            hint="set teacher: online, or loss.type: forward_kl, in the recipe",
        )
    found = _ChunkedLoss.apply(hidden, head, teacher, targets, weights, room or Room())  # type: ignore[no-untyped-call]
    loss, divergence, entropy = found
    return loss, divergence, entropy


class _ChunkedLoss(MadeInForward):
    """The gradient by the logits has a closed form.

    d/dz = kd T dD/du + ce (softmax(z) - onehot), with u = z/T and dD/du as `Divergence.closed` has it.
    """

    @staticmethod
    def forward(
        context: Any,
        hidden: torch.Tensor,
        head: torch.Tensor,
        teacher: Teaching,
        targets: torch.Tensor,
        weights: LossWeights,
        room: Room,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        def begin(part: torch.Tensor) -> Turn:
            accurate = torch.promote_types(hidden.dtype, torch.float32)
            known, following = _known(teacher, part, room), targets[part]
            if not isinstance(known, TeacherTop) and fused_loss_fits(hidden, head, known, weights):
                return partial(fused_loss, known=known, targets=following, weights=weights)

            def chunk(logits: torch.Tensor, at: slice) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
                of_teacher = (
                    room.cast("teacher wide", known[at], accurate) if isinstance(known, torch.Tensor) else known.at(at)
                )
                # One shape alone is compiled: the rest of a batch is another for nearly every batch.
                if is_compiling() and logits.shape[0] == at_once:
                    return _compiled_chunk(logits, of_teacher, following[at], weights)
                return _chunk(logits, of_teacher, following[at], weights, room)

            return in_parts(chunk, at_once, accurate, room)

        at_once = tokens_at_once(head)
        return in_chunks(context, hidden, head, targets, weights, begin, room)


def tokens_at_once(head: torch.Tensor) -> int:
    """How many tokens' logits are computed with at once: as many as a core's cache holds, or all that there may be."""
    if head.device.type != "cpu" or is_compiling():
        return CHUNK_TOKENS
    return min(CHUNK_TOKENS, max(1, CACHED_LOGITS // len(head)))


def fused_loss_fits(
    hidden: torch.Tensor, head: torch.Tensor, known: torch.Tensor | TeacherSamples, weights: LossWeights
) -> bool:
    """Returns whether `fused_loss` may be used: where passes are fused, on bf16, with the forward KL."""
    if weights.divergence != "forward_kl" or not fits(hidden, head):
        return False
    return hidden.dtype == torch.bfloat16 and (not isinstance(known, torch.Tensor) or fits(known))


def fused_loss(
    logits: torch.Tensor, count: int, known: torch.Tensor | TeacherSamples, targets: torch.Tensor, weights: LossWeights
) -> torch.Tensor:
    """A `Turn` in one pass over each token's logits, whose intermediate values stay in the processor's cache."""
    sums = torch.empty(2, len(logits), dtype=torch.float64)
    teacher, ids, drawn, entropy = (
        (known, None, None, None)
        if isinstance(known, torch.Tensor)
        else (None, known.ids.contiguous(), known.weights.float().contiguous(), known.entropy.float().contiguous())
    )
    settings = (weights.temperature, weights.kd, weights.ce, float(count))
    size = logits.shape
    kept = 0 if ids is None else ids.shape[1]
    given = (logits, teacher, ids, drawn, entropy, kept, targets.contiguous(), *size, *settings, sums[0], sums[1])
    kernels().call("loss_rows", logits.dtype, *given)
    return sums.sum(dim=1)


def _known(teacher: Teaching, rows: torch.Tensor, room: Room) -> Known:
    """What is known of the teacher's distribution at some tokens."""
    if isinstance(teacher, TeacherView):
        return room.product("teacher", teacher.hidden[rows], teacher.head.T)
    return teacher.at(rows)


def _chunk(
    student: torch.Tensor, teacher: Known, targets: torch.Tensor, weights: LossWeights, room: Room | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sums of divergence and cross-entropy over a chunk, and the gradient of the weighted loss by the student's logits.

    With a `room` the logits of student and teacher are overwritten.
    """
    scale = weights.temperature
    log_student = _log_likely(student, scale, "log student", room)
    spare = [student] if room is not None and scale == 1.0 else []
    apart, gradient = _compare(log_student, teacher, weights, spare, room)
    plain = log_student if scale == 1.0 else functional.log_softmax(student, dim=-1)
    ce = functional.nll_loss(plain, targets, reduction="sum")
    # In place: each tensor is a chunk's logits, and these are the memory peak.
    gradient.mul_(weights.kd * scale).add_(plain.exp_(), alpha=weights.ce)
    there = targets[:, None]
    gradient.scatter_add_(-1, there, torch.full_like(there, -weights.ce, dtype=gradient.dtype))
    return apart * scale**2, ce, gradient


_compiled_chunk = compiled_or_eager(_chunk)


def _compare(
    log_student: torch.Tensor, teacher: Known, weights: LossWeights, spare: list[torch.Tensor], room: Room | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The divergence summed over a chunk, and its gradient by u = z / T; `spare` is memory for tensors of the logits' shape."""

    def exp(logarithms: torch.Tensor) -> torch.Tensor:
        return torch.exp(logarithms, out=spare.pop()) if spare else logarithms.exp()

    if isinstance(teacher, TeacherSamples):
        return sampled_kl_closed(log_student, teacher.ids, teacher.weights, teacher.entropy, exp)
    if isinstance(teacher, TeacherTop):
        return coarse_kl_closed(log_student, teacher.ids, teacher.log_likely)
    log_teacher = _log_likely(teacher, weights.temperature, "log teacher", room)
    if room is not None:
        spare.append(teacher)
    return DIVERGENCES[weights.divergence].closed(log_student, log_teacher, weights.skew, exp)


def _log_likely(logits: torch.Tensor, temperature: float, name: str, room: Room | None) -> torch.Tensor:
    # Dividing by 1 would be another pass over memory.
    softened = logits if temperature == 1.0 else logits / temperature
    return functional.log_softmax(softened, dim=-1) if room is None else room.log_softmax(name, softened)
