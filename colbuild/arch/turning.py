"""Whether a model's residual stream can be turned without changing what it computes: known from its structure alone."""

from __future__ import annotations

from colbuild.arch.architecture import Structure
from colbuild.arch.table import Role


def why_not_turned(structure: Structure) -> str | None:
    """Why the residual stream of such models cannot be turned; None if it can be."""
    architecture = structure.architecture
    roles = {pattern.role for pattern in architecture.tensors}
    if Role.NORM_BIAS in roles:
        return f"the LayerNorm of {architecture.name} takes the mean of its channels, which only some turns keep"
    if Role.BRANCH_NORM in roles:
        return f"{architecture.name} has norms behind its branches, whose weights cannot be folded into what follows"
    if dict(structure.flags).get("tie_word_embeddings"):
        return "a head that is the embedding cannot take up the weights of the last norm"
    return None
