"""Checks whether a model's residual stream can be rotated without a change of its function, from its structure alone."""

from __future__ import annotations

from colbuild.arch.architecture import Structure
from colbuild.arch.table import Role


def why_not_turned(structure: Structure) -> str | None:
    """Returns the reason why the residual stream of such models cannot be rotated; None if it can."""
    architecture = structure.architecture
    roles = {pattern.role for pattern in architecture.tensors}
    if Role.NORM_BIAS in roles:
        return f"the LayerNorm of {architecture.name} subtracts the mean of its channels, which a rotation changes"
    if Role.BRANCH_NORM in roles:
        return (
            f"{architecture.name} has norms after its branches, whose weights cannot be folded into the next projection"
        )
    if dict(structure.flags).get("tie_word_embeddings"):
        return "the head is tied to the embedding and cannot absorb the weights of the last norm"
    return None
