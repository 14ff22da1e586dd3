"""Losses between a student and a teacher of two vocabularies, at the places where both have read the same text.

At such a place each model tells what it expects next, in its own tokens; between two places, what it thought of the text there.

- `alm`: the divergence of what is expected next, of the finest events that both vocabularies can tell apart
  (`colbuild.train.across.vocabularies`), and over each chunk of text that is more than one shared token, of its likelihood.
  That is approximate likelihood matching (Minixhofer et al., arXiv 2503.20083, section 3), with whole distributions instead
  of "this chunk or another" wherever the vocabularies allow it. With equal vocabularies that is everywhere, and it is the
  forward KL of `colbuild.train.losses.losses`.
- `mined`: the forward KL, the teacher's tokens mapped to the student's of the smallest edit distance (FuseLLM,
  arXiv 2401.10491).
- `uld`: the L1 distance of the sorted probabilities, which asks nothing of the vocabularies (Boizard et al.,
  arXiv 2402.12030, section 3).
- `seqkd`: nothing beyond the text, which the teacher has written (Kim and Rush, arXiv 1606.07947; the bridge of
  Chain-of-Learngene).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.nn import functional

from colbuild.plan.workload.at_once import CHUNK_TOKENS
from colbuild.train.across.aligned_text import Crossing
from colbuild.train.across.vocabularies import Projection
from colbuild.train.batch import IGNORED
from colbuild.train.losses.chunks import MadeInForward, Turn, in_chunks, in_parts
from colbuild.train.losses.logits_buffer import Room
from colbuild.train.losses.losses import LossWeights

CHUNK_TEMPERATURE: Final = 10.0
"""Softens the likelihoods of chunks: at 1 an unlikely chunk would hardly count."""

_TINY: Final = 1e-6


@dataclass(frozen=True, eq=False)
class AcrossView:
    """The teacher's view of a batch.

    Attributes:
        hidden: Its final hidden states [positions, hidden].
        head: Its head [vocabulary, hidden].
        crossing: Where they belong.
        projection: From its vocabulary to the student's.
        loss: A key of `NEXT`.
    """

    hidden: torch.Tensor
    head: torch.Tensor
    crossing: Crossing
    projection: Projection
    loss: str


Next = Callable[[torch.Tensor, torch.Tensor, Projection], torch.Tensor]
"""(student's log-probabilities [places, its vocabulary], teacher's [places, its own], projection) -> [places]."""


def _events_kl(log_student: torch.Tensor, log_teacher: torch.Tensor, projection: Projection) -> torch.Tensor:
    """KL of the teacher's distribution from the student's over the events of a projection."""
    told = projection.told
    likely = _projected(log_teacher, projection)
    each = likely[:, :-1]
    apart: torch.Tensor = (torch.special.xlogy(each, each) - each * log_student).masked_fill(~told, 0.0).sum(dim=1)
    if not bool(told.all()):
        rest = likely[:, -1]
        log_rest = log_student.masked_fill(told, -torch.inf).logsumexp(dim=1)
        apart = apart + torch.special.xlogy(rest, rest) - rest * log_rest
    return apart


def _sorted_distance(log_student: torch.Tensor, log_teacher: torch.Tensor, _: Projection) -> torch.Tensor:
    """The sum of |p - q| over both vocabularies sorted by probability, the smaller filled up with zeros."""
    ours, theirs = (each.exp().sort(dim=1, descending=True).values for each in (log_student, log_teacher))
    size = max(ours.shape[1], theirs.shape[1])
    ours, theirs = (functional.pad(each, (0, size - each.shape[1])) for each in (ours, theirs))
    distance: torch.Tensor = (ours - theirs).abs().sum(dim=1)
    return distance


NEXT: Final[Mapping[str, Next]] = {"alm": _events_kl, "mined": _events_kl, "uld": _sorted_distance}
"""What compares the distributions of the next token."""


def _projected(log_teacher: torch.Tensor, projection: Projection) -> torch.Tensor:
    """[places, student's vocabulary + 1]: the last is the probability of something else."""
    size = projection.told.shape[0]
    into = torch.zeros(log_teacher.shape[0], size + 1, dtype=log_teacher.dtype, device=log_teacher.device)
    return into.index_add_(1, projection.to, log_teacher.exp())


def chunk_divergence(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """KL of "this chunk or another", of log-likelihoods [chunks] softened by a temperature, times the temperature.

    Minixhofer et al., arXiv 2503.20083, section 3.2.
    """
    p, q = ((each / temperature).exp().clamp(_TINY, 1.0 - _TINY) for each in (teacher, student))
    return temperature * (p * (p.log() - q.log()) + (1.0 - p) * ((1.0 - p).log() - (1.0 - q).log()))


def across_loss(
    hidden: torch.Tensor,
    head: torch.Tensor,
    view: AcrossView | None,
    targets: torch.Tensor,
    weights: LossWeights,
    room: Room | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The loss of a batch, in memory for one chunk of tokens.

    Args:
        hidden: The student's final hidden states [tokens, hidden].
        head: Its head [vocabulary, hidden].
        view: What the teacher knows; None for the text alone.
        targets: The tokens that follow, [tokens]; of those that are `IGNORED` nothing is asked.
        weights: How the parts are mixed; which divergence it is, the view says.
        room: Memory of an earlier call that is used again.

    Returns:
        (loss, what the teacher says of it, cross-entropy), each the mean over the tokens that are asked for; only the loss
        carries a gradient, to `hidden` and `head`.
    """
    found = _AcrossLoss.apply(hidden, head, view, targets, weights, room or Room())  # type: ignore[no-untyped-call]
    loss, apart, entropy = found
    return loss, apart, entropy


class _AcrossLoss(MadeInForward):
    """The gradient by a chunk's logits is autograd's."""

    @staticmethod
    def forward(
        context: Any,
        hidden: torch.Tensor,
        head: torch.Tensor,
        view: AcrossView | None,
        targets: torch.Tensor,
        weights: LossWeights,
        room: Room,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        accurate = torch.promote_types(hidden.dtype, torch.float32)
        apart, pulls = _chunks(hidden, head, view, targets, accurate)
        places = _places(view, len(targets), hidden.device)

        def begin(part: torch.Tensor) -> Turn:
            def chunk(logits: torch.Tensor, at: slice) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
                rows = part[at]
                logits.requires_grad_()
                with torch.enable_grad():
                    ce = functional.cross_entropy(logits, targets[rows], reduction="none")
                    near = _next(logits, view, places[rows], weights.temperature, accurate)
                    whole = weights.ce * ce.sum() + weights.kd * (near - (pulls[rows] * ce).sum())
                    (gradient,) = torch.autograd.grad(whole, logits)
                return near.detach(), ce.detach().sum(), gradient

            return in_parts(chunk, CHUNK_TOKENS, accurate, room)

        return in_chunks(context, hidden, head, targets, weights, begin, room, apart)


def _places(view: AcrossView | None, tokens: int, device: torch.device) -> torch.Tensor:
    """[tokens] the teacher's position that each of the student's stands with; -1 where it stands with none."""
    found = torch.full((tokens,), -1, device=device)
    if view is not None:
        found[view.crossing.student] = view.crossing.teacher
    return found


def _next(
    logits: torch.Tensor, view: AcrossView | None, places: torch.Tensor, temperature: float, accurate: torch.dtype
) -> torch.Tensor:
    """The sum, over tokens whose place the teacher shares, of how far apart the two expect the next token."""
    shared = torch.nonzero(places >= 0).squeeze(1)
    if view is None or not len(shared):
        return logits.new_zeros(())
    with torch.no_grad():
        theirs = (view.hidden[places[shared]] @ view.head.T).to(accurate) / temperature
        log_teacher = functional.log_softmax(theirs, dim=-1)
    log_student = functional.log_softmax(logits[shared] / temperature, dim=-1)
    return NEXT[view.loss](log_student, log_teacher, view.projection).sum() * temperature**2


def _chunks(
    hidden: torch.Tensor, head: torch.Tensor, view: AcrossView | None, targets: torch.Tensor, accurate: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """The divergence over chunks, and its derivative by the log-likelihood of each of the student's tokens [tokens].

    A chunk that is one token on both sides, and one that the events tell, has been compared already.
    """
    pulls = torch.zeros(len(targets), dtype=accurate, device=hidden.device)
    nothing = torch.zeros((), dtype=torch.float64)
    if view is None or view.loss != "alm":
        return nothing, pulls
    crossing = view.crossing
    lengths = crossing.chunks
    known = targets[crossing.student]
    told = view.projection.told[known.clamp(min=0)] & (lengths == 1).all(dim=1)
    wanted = torch.nonzero((lengths > 0).all(dim=1) & ~told).squeeze(1)
    if not len(wanted):
        return nothing, pulls
    ours, of_ours = _stretches(crossing.student[wanted], lengths[wanted, 0])
    theirs, of_theirs = _stretches(crossing.teacher[wanted], lengths[wanted, 1])
    # What follows a separator is not asked for where documents see each other.
    lost = torch.zeros(len(wanted), dtype=torch.bool, device=hidden.device)
    lost[of_ours[targets[ours] == IGNORED]] = True
    lost[of_theirs[crossing.targets.flatten()[theirs] == IGNORED]] = True
    likely = [
        torch.zeros(len(wanted), dtype=accurate, device=hidden.device).index_add_(
            0, of, _log_likelihoods(states[at], weight, following[at].clamp(min=0), accurate)
        )
        for states, weight, at, of, following in (
            (hidden, head, ours, of_ours, targets),
            (view.hidden, view.head, theirs, of_theirs, crossing.targets.flatten()),
        )
    ]
    with torch.enable_grad():
        student = likely[0].requires_grad_()
        apart = chunk_divergence(student, likely[1], CHUNK_TEMPERATURE).masked_fill(lost, 0.0).sum()
        (slopes,) = torch.autograd.grad(apart, student)
    pulls.index_add_(0, ours, slopes[of_ours])
    return apart.detach().double().cpu(), pulls


def _stretches(starts: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions of some stretches, one after the other, and which stretch each belongs to."""
    which = torch.repeat_interleave(torch.arange(len(starts), device=starts.device), lengths)
    first = torch.cumsum(lengths, 0) - lengths
    inside = torch.arange(len(which), device=starts.device) - first[which]
    return starts[which] + inside, which


def _log_likelihoods(
    hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor, accurate: torch.dtype
) -> torch.Tensor:
    """[tokens] the log-likelihood of each token."""
    found = [
        -functional.cross_entropy((states @ head.T).to(accurate), following, reduction="none")
        for states, following in zip(torch.split(hidden, CHUNK_TOKENS), torch.split(targets, CHUNK_TOKENS), strict=True)
    ]
    return torch.cat(found)
