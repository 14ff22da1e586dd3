"""The graph of a family while it is being drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from colbuild.plan.drawing.parts import home_of, with_parts
from colbuild.plan.drawing.step import Step
from colbuild.plan.drawing.training_params import lessons_params
from colbuild.spec.model.recipe import Recipe

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
    homes: dict[str, str] = field(default_factory=dict)
    """Step id -> the step whose tokenizer and texts belong to what it makes (`colbuild.plan.drawing.parts`)."""

    def add(self, step: Step, origins: dict[str, FamilyPath]) -> str:
        """Draws a step, with where its parameters were asked for, and returns its id; one that is there already is left."""
        if step.id not in self.steps:
            self.steps[step.id] = with_parts(step, self.homes)
            self.homes[step.id] = home_of(step, self.homes)
        self.origins.setdefault(step.id, origins)
        return step.id


def draw_lessons(
    draft: Draft,
    recipe: Recipe,
    path: FamilyPath,
    teacher: str,
    student: str,
    inputs: Mapping[str, str],
    split: str,
) -> dict[str, str]:
    """The role that a teacher's lessons play in a training, if its recipe has them written down.

    Those who ask the same of a teacher share one step. It is called by the teacher, and where there are several, each but
    the first also by who reads it first.
    """
    if recipe.teacher != "cached":
        return {}
    params = lessons_params(recipe, split)
    needed = {"teacher": inputs["teacher"], "corpus": inputs["corpus"]}
    others = draft.lessons.setdefault(inputs["teacher"], [])
    same = next((step.id for step in others if step.params == params), None)
    if same is not None:
        return {"lessons": same}
    steered = {"checkpoint_every": recipe.checkpoint_every}
    name = f"teach {teacher} for {student}" if others else f"teach {teacher}"
    places = {key: (*path, key) for key in params}
    places |= {"": (*path, "teacher"), "split": SPLIT, "windows": (*path, "tokens")}
    places |= {"temperature": (*path, "loss", "temperature"), "type": (*path, "teacher_cache", "type")}
    others.append(Step(name, "teach", params, inputs=needed, settings=steered))
    return {"lessons": draft.add(others[-1], places)}
