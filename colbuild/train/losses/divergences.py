"""The divergences between a student's and its teacher's distributions, in one table.

p is the teacher's distribution, q the student's, both softened by the temperature T: q = softmax(z / T). Each divergence has

- `dense`: the definition, plain enough to be compared with its paper; autograd gives its gradient;
- `closed`: the same value and its gradient by u = z / T in closed form, for a chunk of tokens, in few passes over memory.

The forward KL alone is linear in p, apart from p's own entropy. So it alone can be had from draws of p (`sampled_kl`); from p's
largest values it is had of the tokens they belong to and all the others taken together (`coarse_kl`).

For D = sum_i f(q_i) the gradient by u is q * (f' - sum(q f')), and a constant added to f' changes nothing: the constants here
are those that make it 0.0 to the last bit where p and q are equal. AdamW would blow up what rounding leaves to whole steps.

T: the loss takes T^2 D, whose gradient by z is T dD/du. For large T dD/du falls like 1 / T, and so the gradient stays as large
as at T = 1 (Hinton et al., arXiv 1503.02531, section 2, who say it of the forward KL; it holds for all of these).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import torch

Dense = Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]
"""(log q, log p, skew) -> divergence of each token; log-probabilities are [tokens, vocabulary]."""

Exp = Callable[[torch.Tensor], torch.Tensor]
"""Exponentiates into memory that the caller has to spare; `torch.exp` where there is none."""

Closed = Callable[[torch.Tensor, torch.Tensor, float, Exp], tuple[torch.Tensor, torch.Tensor]]
"""(log q, log p, skew, exp) -> (divergence summed over tokens, its gradient by u). Overwrites log p, leaves log q as it is."""


@dataclass(frozen=True)
class Divergence:
    """One divergence between teacher and student.

    Attributes:
        dense: What it is.
        closed: How it is computed.
    """

    dense: Dense
    closed: Closed


# -- the definitions --------------------------------------------------------------------------------------------------


def _forward_kl(log_student: torch.Tensor, log_teacher: torch.Tensor, _: float) -> torch.Tensor:
    """KL(p || q): Hinton et al., arXiv 1503.02531, section 2 (there as a cross-entropy, which differs by p's entropy)."""
    return _kl(log_teacher, log_student)


def _reverse_kl(log_student: torch.Tensor, log_teacher: torch.Tensor, _: float) -> torch.Tensor:
    """KL(q || p): MiniLLM, arXiv 2306.08543, section 2; here token by token."""
    return _kl(log_student, log_teacher)


def _skew_kl(log_student: torch.Tensor, log_teacher: torch.Tensor, skew: float) -> torch.Tensor:
    """KL(p || skew p + (1 - skew) q): DistiLLM, arXiv 2402.03898, section 3.1."""
    return _kl(log_teacher, _log_mix(log_teacher, log_student, skew))


def _skew_rkl(log_student: torch.Tensor, log_teacher: torch.Tensor, skew: float) -> torch.Tensor:
    """KL(q || skew q + (1 - skew) p): DistiLLM, arXiv 2402.03898, section 3.1."""
    return _kl(log_student, _log_mix(log_student, log_teacher, skew))


def _jsd(log_student: torch.Tensor, log_teacher: torch.Tensor, _: float) -> torch.Tensor:
    """Half of KL(p || m) + KL(q || m), m = (p + q) / 2: GKD, arXiv 2306.13649, section 2, at beta 1/2. At most ln 2."""
    middle = _log_mix(log_teacher, log_student, 0.5)
    return 0.5 * (_kl(log_teacher, middle) + _kl(log_student, middle))


def _kl(log_one: torch.Tensor, log_other: torch.Tensor) -> torch.Tensor:
    return (log_one.exp() * (log_one - log_other)).sum(dim=-1)


def _log_mix(log_one: torch.Tensor, log_other: torch.Tensor, share: float) -> torch.Tensor:
    """The log of share * one + (1 - share) * other."""
    if share == 0.0:
        return log_other
    return torch.logaddexp(log_one + math.log(share), log_other + math.log1p(-share))


# -- in closed form ---------------------------------------------------------------------------------------------------
# In place wherever a tensor is no longer needed: each is a chunk's logits, and these are the memory peak.


def _forward_kl_closed(
    log_student: torch.Tensor, log_teacher: torch.Tensor, _: float, exp: Exp = torch.exp
) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradient is q - p."""
    likely = exp(log_teacher)
    value = log_teacher.sub_(log_student).mul_(likely).sum()
    return value, exp(log_student).sub_(likely)


def _reverse_kl_closed(
    log_student: torch.Tensor, log_teacher: torch.Tensor, _: float, exp: Exp = torch.exp
) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradient is q (r - sum(q r)), r = log q - log p: logarithms, as p may be too small to be held where q is not."""
    likely = exp(log_student)
    return _centred(likely, log_teacher.neg_().add_(log_student))


def _skew_kl_closed(
    log_student: torch.Tensor, log_teacher: torch.Tensor, skew: float, exp: Exp = torch.exp
) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradient is (1 - skew) q (sum(q r) - r), r = p / m - 1, for the mixture m."""
    if skew == 0.0:
        return _forward_kl_closed(log_student, log_teacher, skew, exp)
    student, teacher = exp(log_student), log_teacher.exp_()
    ratio = _ratio(teacher, torch.lerp(student, teacher, skew))
    value = teacher.mul_(ratio.log()).sum()
    _, gradient = _centred(student, ratio.sub_(1.0))
    return value, gradient.mul_(skew - 1.0)


def _skew_rkl_closed(
    log_student: torch.Tensor, log_teacher: torch.Tensor, skew: float, exp: Exp = torch.exp
) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradient is q (r - sum(q r)), r = log s - skew (s - 1), s = q / m, for the mixture m."""
    if skew == 0.0:
        return _reverse_kl_closed(log_student, log_teacher, skew, exp)
    student, teacher = exp(log_student), log_teacher.exp_()
    ratio = _ratio(student, torch.lerp(teacher, student, skew, out=teacher))
    surprise = ratio.log()
    ratio.sub_(1.0)
    # sum(q log s) = sum(q r) + skew sum(q (s - 1)): the product is taken once.
    beyond = torch.linalg.vecdot(student, ratio).sum() * skew
    value, gradient = _centred(student, surprise.sub_(ratio, alpha=skew))
    return value + beyond, gradient


def _jsd_closed(
    log_student: torch.Tensor, log_teacher: torch.Tensor, _: float, exp: Exp = torch.exp
) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradient is q (r - sum(q r)) / 2, r = log(q / m), for the mixture m."""
    student, teacher = exp(log_student), log_teacher.exp_()
    middle = torch.lerp(student, teacher, 0.5)
    of_teacher = teacher.mul_(_ratio(teacher, middle.clone()).log_()).sum()
    of_student, gradient = _centred(student, _ratio(student, middle).log_())
    return 0.5 * (of_teacher + of_student), gradient.mul_(0.5)


def _centred(likely: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(sum over all of q v, q (v - the token's sum of q v)); overwrites v."""
    gradient = values.mul_(likely)
    means = gradient.sum(dim=-1, keepdim=True)
    return means.sum(), gradient.addcmul_(likely, means, value=-1.0)


def _ratio(part: torch.Tensor, mix: torch.Tensor) -> torch.Tensor:
    """The quotient part / mix, overwriting mix; 1 where both are too small to be held. Its logarithm is finite; NaN stays NaN.

    `lerp`, which the mixtures are made by, gives p itself where p and q are equal, and so a ratio of exactly 1.
    """
    neither = mix == 0.0
    bounds = torch.finfo(mix.dtype)
    return torch.div(part, mix, out=mix).masked_fill_(neither, 1.0).clamp_(bounds.tiny, bounds.max)


# -- the forward KL from what was kept of the teacher -----------------------------------------------------------------


def sampled_kl(
    log_student: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor, entropy: torch.Tensor
) -> torch.Tensor:
    """KL(p || q) of each token, its expectation under p by weighted draws: RS-KD, arXiv 2503.16870, section 3.

    Its mean over all draws is the divergence itself, and so is its gradient's. A single one may be below zero.

    Args:
        log_student: log q [tokens, vocabulary].
        ids: What was drawn [tokens, k]; an id may be there several times.
        weights: [tokens, k], 1 in all for a token; the mean of an id's weight over all draws is its probability.
        entropy: Of p, in nats [tokens].
    """
    return -entropy - (weights * log_student.gather(-1, ids)).sum(dim=-1)


def sampled_kl_closed(
    log_student: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor, entropy: torch.Tensor, exp: Exp = torch.exp
) -> tuple[torch.Tensor, torch.Tensor]:
    """(`sampled_kl` summed over tokens, its gradient by u): q minus the weights where they are."""
    value = sampled_kl(log_student, ids, weights, entropy).sum()
    return value, exp(log_student).scatter_add_(-1, ids, -weights)


def coarsened(log_likely: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """The logarithms [tokens, k + 1] of the probabilities of k different ids [tokens, k], and of all others together."""
    others = log_likely.scatter(-1, ids, -math.inf).logsumexp(dim=-1, keepdim=True)
    return torch.cat([log_likely.gather(-1, ids), others], dim=-1)


def coarse_kl(log_student: torch.Tensor, ids: torch.Tensor, log_teacher: torch.Tensor) -> torch.Tensor:
    """KL(p || q) of each token after both were `coarsened`, which makes it smaller: nothing is asked about the others' shares.

    Args:
        log_student: log q [tokens, vocabulary].
        ids: The kept ids [tokens, k], each once, fewer than the vocabulary has.
        log_teacher: p, coarsened [tokens, k + 1].
    """
    return _kl(log_teacher, coarsened(log_student, ids))


def coarse_kl_closed(
    log_student: torch.Tensor, ids: torch.Tensor, log_teacher: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(`coarse_kl` summed over tokens, its gradient by u): q - p at the kept ids, elsewhere q (1 - r).

    r = p / q of all others together. With d = log r the latter is written exp(log q + max(d, 0)) sign(d) (exp(-|d|) - 1), which
    is zero where d is and holds where q, but not p, is too small for its logarithm to be taken back.
    """
    ours = coarsened(log_student, ids)
    value = _kl(log_teacher, ours).sum()
    apart = log_teacher[:, -1:] - ours[:, -1:]
    gradient = (log_student + apart.clamp(min=0.0)).exp_().mul_(apart.sign() * torch.expm1(-apart.abs()))
    return value, gradient.scatter_(-1, ids, ours[:, :-1].exp() - log_teacher[:, :-1].exp())


DIVERGENCES: Final[Mapping[str, Divergence]] = {
    "forward_kl": Divergence(_forward_kl, _forward_kl_closed),
    "reverse_kl": Divergence(_reverse_kl, _reverse_kl_closed),
    "skew_kl": Divergence(_skew_kl, _skew_kl_closed),
    "skew_rkl": Divergence(_skew_rkl, _skew_rkl_closed),
    "jsd": Divergence(_jsd, _jsd_closed),
}
"""A recipe's `loss.type` -> its divergence."""
