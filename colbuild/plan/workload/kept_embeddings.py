"""Whether a training leaves the embedding and the head as they are.

After few tokens most rows of an embedding have had a gradient once or never, and Adam moves such a row as far as one that has
had many: what a student has whole from its teacher only gets worse (docs/method.md, "Embeddings").
"""

from __future__ import annotations

from typing import Final

from colbuild.arch import Role, Structure, Tensor, tensors
from colbuild.spec.model.recipe import Recipe

FEW: Final = 1_000_000
"""Tokens of a training up to which `embeddings: auto` keeps them."""

_EMBEDDINGS: Final = (Role.EMBEDDING, Role.HEAD)


def keeps_embeddings(recipe: Recipe, student: Structure, smallest: Structure, teacher: Structure) -> bool:
    """Returns whether a training changes neither embedding nor head.

    Args:
        recipe: How it trains.
        student: The largest shape that it trains.
        smallest: The smallest one, the same where it is not elastic.
        teacher: What the student learns from.
    """
    if recipe.embeddings != "auto":
        return recipe.embeddings == "keep"
    alike = student.architecture == teacher.architecture and student.shape.vocab == teacher.shape.vocab
    whole = teacher.shape.hidden == student.shape.hidden == smallest.shape.hidden
    return recipe.tokens <= FEW and alike and whole


def with_own_start(recipe: Recipe) -> Recipe:
    """The recipe of a student that starts from a checkpoint of its own: its embedding is not its teacher's."""
    return recipe.model_copy(update={"embeddings": "train"}) if recipe.embeddings == "auto" else recipe


def embeddings(structure: Structure) -> tuple[Tensor, ...]:
    """The tensors of a model that are kept then."""
    return tuple(tensor for tensor in tensors(structure) if tensor.role in _EMBEDDINGS)
