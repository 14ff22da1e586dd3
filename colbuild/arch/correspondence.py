"""Parts of a model that another architecture can hold, computed from the two structures alone.

A transplanted start is *exact* (it computes what the AnsNet's subset computes), *approximate* (parts have no counterpart and
are fitted on text), or *refused* (a bias would be lost that nothing can make up for, or norms stand elsewhere).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from colbuild.arch.architecture import Structure, patterns
from colbuild.arch.table import Role

BIASES: Final[Mapping[Role, str]] = {
    Role.ATTENTION_IN: "queries, keys and values",
    Role.ATTENTION_OUT: "the attention's output",
    Role.FFN_IN: "the FFN's inner channels",
    Role.FFN_OUT: "the FFN's output",
}
"""The roles of projections, and what the biases of each are added to."""

_NORMS: Final[Mapping[Role, str]] = {
    Role.HEAD_NORM: "norms over each head's queries and keys",
    Role.BRANCH_NORM: "norms over the output of attention and FFN",
}


def biased(structure: Structure) -> frozenset[Role]:
    """The projections of a structure that have a bias."""
    return frozenset(
        pattern.role for pattern in patterns(structure) if pattern.role in BIASES and pattern.name.endswith(".bias")
    )


def copies_blocks(old: Structure, new: Structure) -> bool:
    """Returns whether blocks are copied as they are; else their output projections are fitted."""
    return old.architecture is new.architecture or (old.architecture.is_gated and new.architecture.is_gated)


def lost_biases(old: Structure, new: Structure) -> tuple[str, ...]:
    """Returns the names of biases that a transplant would lose; such a transplant is refused.

    Biases of queries and keys decide what attention looks at, which no output projection can make up for. The others are lost
    only where output projections are copied: a fitted one makes up for them.

    Args:
        old: The model that is transplanted.
        new: What it is transplanted into.
    """
    missing = biased(old) - biased(new)
    refused = missing if copies_blocks(old, new) else missing & {Role.ATTENTION_IN}
    return tuple(called for role, called in BIASES.items() if role in refused)


def unlike_norms(old: Structure, new: Structure) -> str | None:
    """Returns the reason why no part of a block corresponds, which refuses a transplant; None if parts correspond.

    What reads the residual stream itself, not a norm of it, takes up its length, which differs from token to token: no weights
    of the other kind compute nearly the same.

    Args:
        old: The model that is transplanted.
        new: What it is transplanted into.
    """
    if old.architecture.has_norms_before == new.architecture.has_norms_before:
        return None
    normed, bare = (old, new) if old.architecture.has_norms_before else (new, old)
    return f"{bare.architecture.name} has no norms before attention and FFN, and {normed.architecture.name} has"


def approximations(old: Structure, new: Structure) -> tuple[str, ...]:
    """Returns the reasons why a transplanted start is an approximation; empty if it is exact.

    What follows from the configuration alone (two rotary bases, attention side by side with the FFN)
    belongs to architectures whose transplants into any other one are approximate for these reasons already.

    Args:
        old: The model that is transplanted.
        new: What it is transplanted into.
    """
    if old.architecture is new.architecture:
        return ()
    theirs, ours = ({pattern.role for pattern in patterns(one)} for one in (old, new))
    reasons = [f"the AnsNet has no {called}" for role, called in _NORMS.items() if role in ours - theirs]
    reasons += [f"{new.architecture.name} has no {called}" for role, called in _NORMS.items() if role in theirs - ours]
    if Role.POSITION in ours ^ theirs:
        learned = new if Role.POSITION in ours else old
        reasons.append(f"{learned.architecture.name} has learned positions")
    if (Role.NORM_BIAS in ours) != (Role.NORM_BIAS in theirs):
        layered = new if Role.NORM_BIAS in ours else old
        reasons.append(f"{layered.architecture.name} has LayerNorm")
    if old.architecture.is_gated != new.architecture.is_gated:
        plain = new if old.architecture.is_gated else old
        reasons.append(f"{plain.architecture.name} has no gate in its FFN")
    return tuple(reasons)
