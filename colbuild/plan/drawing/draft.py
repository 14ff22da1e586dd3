"""The graph of a family during drawing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from colbuild.plan.drawing.step import Step
from colbuild.spec.model.device import Profile
from colbuild.spec.model.family import Family

FamilyPath = tuple[str | int, ...]
"""Keys and places in the resolved family."""

SPLIT: Final[FamilyPath] = ("data", "train", "split")


@dataclass
class Draft:
    """The steps drawn so far.

    A step is drawn with the ids of the steps it needs, which `add` returns: so they are drawn before it, and the order in
    which steps are drawn is one in which they can be run.
    """

    steps: dict[str, Step] = field(default_factory=dict)
    origins: dict[str, dict[str, FamilyPath]] = field(default_factory=dict)

    def add(self, step: Step, origins: dict[str, FamilyPath]) -> str:
        """Draws a step, with where its parameters were asked for, and returns its id; one that is there already is left."""
        self.steps.setdefault(step.id, step)
        self.origins.setdefault(step.id, origins)
        return step.id


@dataclass(frozen=True)
class FamilyTexts:
    """Ids of the steps that make a family's texts.

    Attributes:
        train: To train on, in the family's tokens.
        held: To measure on, in the family's tokens.
        ansnet_train: To train on, in the AnsNet's tokens; the same step where these are the family's.
        ansnet_held: To measure the AnsNet on.
        tokenizer: The step that makes the family's tokenizer.
    """

    train: str
    held: str
    ansnet_train: str
    ansnet_held: str
    tokenizer: str


@dataclass(frozen=True)
class Model:
    """A finished model of a family, as the steps that measure and pack it see it.

    Attributes:
        name: Its name.
        made_by: The step that makes it.
        path: Where the spec asks for it.
        profiles: The devices that it is packed for.
        reference: The step that makes the model that it is compared with token by token.
        train: The corpus to train on, in its tokens.
        held: The corpus to measure on, in its tokens.
    """

    name: str
    made_by: str
    path: FamilyPath
    profiles: tuple[Profile, ...]
    reference: str
    train: str
    held: str


@dataclass
class Drawn:
    """The steps of finished models while they are being drawn.

    Attributes:
        draft: The graph.
        family: The resolved spec.
        versions: Exact versions of the libraries that packages are made with.
        metrics: Model name -> id of the step that measures it.
        packages: (model name, profile name) -> id of the step that packs it.
        others: Model name -> ids of further steps that were drawn for it.
        measured: Id of the step that makes a model -> id of the step that measures it.
    """

    draft: Draft
    family: Family
    versions: Mapping[str, str]
    metrics: dict[str, str] = field(default_factory=dict)
    packages: dict[tuple[str, str], str] = field(default_factory=dict)
    others: dict[str, list[str]] = field(default_factory=dict)
    measured: dict[str, str] = field(default_factory=dict)
