"""A step of the build: a pure function of digests to a directory, as a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Read:
    """The origin of a step's input.

    Attributes:
        step: Id of the step whose result it is.
        part: The part of that result (`colbuild.plan.drawing.parts`); None for all of it.
    """

    step: str
    part: str | None


@dataclass(frozen=True)
class Step:
    """One node of the build graph.

    Attributes:
        op: The operation, a key of `colbuild.plan.steps.operations.OPERATIONS`.
        name: Its name among the steps of its kind: "a100", "phone/phone-int8"; empty for a kind that a family has once.
        params: The resolved parameters that change the result: JSON values only. They are part of the key.
        inputs: Role -> id of the step whose output plays it.
        sources: Role -> source URI whose content plays it (a file or folder from outside, known by its digest).
        settings: What steers a run and changes nothing in its result, such as `checkpoint_every`: JSON values, not in the key.
        parts: Role -> part of a model's output that the step reads -> id of the step that makes this part. A role of `inputs`
            that is not here is read whole.
    """

    op: str
    name: str
    params: Mapping[str, Any] = field(hash=False)
    inputs: Mapping[str, str] = field(default_factory=dict, hash=False)
    sources: Mapping[str, str] = field(default_factory=dict, hash=False)
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    parts: Mapping[str, Mapping[str, str]] = field(default_factory=dict, hash=False)

    @property
    def id(self) -> str:
        """Unique in a family, and what people read: "distill a100"."""
        return step_id(self.op, self.name)

    @property
    def reads(self) -> dict[str, Read]:
        """Everything that the step reads of other steps, by its name in the key: "corpus", "teacher.weights"."""
        found: dict[str, Read] = {}
        for role, needed in self.inputs.items():
            parts = self.parts.get(role)
            if not parts:
                found[role] = Read(needed, None)
                continue
            for part, maker in parts.items():
                found[name_of(role, part)] = Read(maker, part)
        return found

    @property
    def needs(self) -> dict[str, None]:
        """Ids of the steps whose results it reads, each once, in the order of its inputs."""
        return dict.fromkeys(
            [*self.inputs.values(), *(maker for made in self.parts.values() for maker in made.values())]
        )


def name_of(role: str, part: str | None) -> str:
    """The name in `Step.reads` of a part of what plays a role: "teacher.weights"; the role's own where all is read."""
    return role if part is None else f"{role}.{part}"


def role_of(name: str) -> str:
    """The role that a name of `Step.reads` stands for: "teacher" of "teacher.weights"."""
    return name.partition(".")[0]


def part_named(name: str) -> str | None:
    """The part that a name of `Step.reads` stands for: "weights" of "teacher.weights"; None where all is read."""
    return name.partition(".")[2] or None


def step_id(op: str, name: str) -> str:
    """The id of a step, as people read it and records keep it."""
    return f"{op} {name}" if name else op
