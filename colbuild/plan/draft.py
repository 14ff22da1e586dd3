"""The graph of a family while it is being drawn."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from colbuild.plan.step import Step

FamilyPath = tuple[str | int, ...]
"""Keys and places in the resolved family."""

SPLIT: Final[FamilyPath] = ("data", "train", "split")


@dataclass
class Draft:
    """The graph while it is being drawn.

    A step is drawn with the ids of the steps it needs, which `add` returns: so they are drawn before it, and the order in
    which steps are drawn is one in which they can be run.
    """

    steps: dict[str, Step] = field(default_factory=dict)
    origins: dict[str, dict[str, FamilyPath]] = field(default_factory=dict)
    lessons: dict[str, list[Step]] = field(default_factory=dict)
    """Id of the step that makes a teacher -> the steps that write down what it says."""

    def add(self, step: Step, origins: dict[str, FamilyPath]) -> str:
        """Draws a step, with where its parameters were asked for, and returns its id; one that is there already is left."""
        self.steps.setdefault(step.id, step)
        self.origins.setdefault(step.id, origins)
        return step.id
