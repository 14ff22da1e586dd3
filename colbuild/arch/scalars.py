"""Scalars of a model besides its weights: multipliers and divisors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from colbuild.arch.architecture import Structure


@dataclass(frozen=True)
class Scalars:
    """The multipliers and divisors of a model.

    `Architecture.scalars` names them, or "attention" for a number that scores are multiplied by.

    Attributes:
        embedding: Token embeddings are multiplied by it.
        attention_width: Scores are divided by its root.
        branch: What attention and FFN write is multiplied by it.
        logits: Logits are divided by it.
    """

    embedding: float
    attention_width: float
    branch: float
    logits: float


def scalars_of(structure: Structure, config: Mapping[str, Any]) -> Scalars:
    """A model's.

    Args:
        structure: The model's.
        config: Its config.json.
    """
    architecture = structure.architecture

    def given(name: str, usual: float) -> float:
        scalar = architecture.scalars.get(name)
        found = None if scalar is None else config.get(scalar.key, scalar.usual)
        return usual if found is None else float(found)

    width = given("attention_width", structure.shape.head_dim)
    if "attention" in architecture.scalars:
        width = given("attention", 1.0) ** -2
    root = float(structure.shape.hidden) ** 0.5
    return Scalars(
        given("embedding", root if architecture.scales_embedding else 1.0),
        width,
        given("branch", 1.0),
        given("logits", 1.0),
    )


def neutral_settings(structure: Structure) -> dict[str, float]:
    """Settings with which such a model multiplies by nothing that an architecture without scalars does not."""
    width = structure.shape.head_dim
    neutral = {"attention_width": width, "attention": width**-0.5}
    return {scalar.key: neutral.get(name, 1.0) for name, scalar in structure.architecture.scalars.items()}
