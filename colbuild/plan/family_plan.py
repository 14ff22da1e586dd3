"""A family's plan and its place on this machine, as values."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from colbuild.errors import SpecError
from colbuild.events import Event
from colbuild.plan.changes.former import former_records
from colbuild.plan.changes.states import State, StepPlan
from colbuild.plan.checks.text_amounts import Known
from colbuild.plan.drawing.build_graph import BuildGraph
from colbuild.plan.lock.lock import LockState
from colbuild.plan.shapes.chain import Chain
from colbuild.spec import LoadedFamily, Problem, load_family
from colbuild.store import Store, open_store

STORE_VARIABLE = "COLBUILD_STORE"
REMOTE_VARIABLE = "COLBUILD_REMOTE"


@dataclass(frozen=True)
class Workspace:
    """The folders of a family's build.

    Attributes:
        store: What was built.
        out: The folder for packages and checkpoints.
    """

    store: Store
    out: Path


@dataclass(frozen=True)
class Selection:
    """The selected and the remaining steps of a family.

    Attributes:
        targets: As they were asked for: "watch", "+watch", "watch+".
        whole: The graph of the whole family.
        left: The steps that no target needs.
    """

    targets: tuple[str, ...]
    whole: BuildGraph
    left: tuple[StepPlan, ...]


@dataclass(frozen=True)
class FamilyPlan:
    """A family with its shapes, its steps and what each is going to do.

    Attributes:
        loaded: The family.
        chain: Its members, shapes solved.
        graph: The steps of the plan: those of the whole family, or of a selection.
        steps: What each is going to do.
        lock: How the family's lock stands.
        selection: What was asked for, if that is not everything.
        texts: Step that packs a corpus -> what is known of it.
        impossible: What makes steps fail that are still to run, as far as that is known.
        warnings: What is likely to be a mistake.
    """

    loaded: LoadedFamily
    chain: Chain
    graph: BuildGraph
    steps: tuple[StepPlan, ...]
    lock: LockState
    selection: Selection | None = None
    texts: Mapping[str, Known] = field(default_factory=dict)
    impossible: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()

    @property
    def pending(self) -> tuple[StepPlan, ...]:
        """The steps that are not in the store."""
        return tuple(step for step in self.steps if step.state is not State.CACHED)


def silent(_: Event) -> None:
    """A listener that hears nothing."""


def open_workspace(loaded: LoadedFamily, store: Path | None = None) -> Workspace:
    """The store and output folder of a family's project.

    Args:
        loaded: The family.
        store: Where the store lies; by default `COLBUILD_STORE`, else `.colbuild` in the project's root.

    Raises:
        BuildError: The store's path holds something else.
    """
    configured = os.environ.get(STORE_VARIABLE)
    root = store or (Path(configured) if configured else loaded.root / ".colbuild")
    return Workspace(open_store(root, former_records), loaded.root / "out")


def remote_url(option: str | None) -> str | None:
    """The remote to use: what was asked for, else `COLBUILD_REMOTE`; None for none. An empty one means none."""
    return (os.environ.get(REMOTE_VARIABLE) if option is None else option) or None


def load_families(paths: Sequence[Path]) -> tuple[LoadedFamily, ...]:
    """Reads several families, each file once.

    Raises:
        SpecError: With every mistake in all of them, or two families of one project have one name.
    """
    families, errors = [], []
    for path in dict.fromkeys(path.absolute() for path in paths):
        try:
            families.append(load_family(path))
        except SpecError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise SpecError("\n\n".join(error.message for error in errors))
    named: dict[tuple[Path, str], LoadedFamily] = {}
    for loaded in families:
        other = named.setdefault((loaded.root, loaded.family.name.lower()), loaded)
        if other is not loaded:
            raise SpecError(
                f"{other.path.name} and {loaded.path.name} both describe a family called '{loaded.family.name}'",
                hint=f"give one of them another name: both would be put into out/{loaded.family.name}/",
            )
    return tuple(families)
