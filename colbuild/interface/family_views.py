"""Views of a family in a notebook: plans, models, packages, builds and reasons, each with a line and a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from colbuild.arch import Shape
from colbuild.errors import BuildError
from colbuild.interface.arguments import StrPath, as_path, python_hints
from colbuild.interface.packages import Package
from colbuild.plan.changes.states import StepPlan
from colbuild.plan.changes.why import Explanation
from colbuild.plan.cost.estimate import Estimates
from colbuild.plan.family_plan import FamilyPlan, Workspace
from colbuild.report.html_table import html_facts, html_table
from colbuild.run.building.building import Built
from colbuild.run.building.family_rows import Row
from colbuild.run.building.plan_questions import estimate_plan, save_plan
from colbuild.spec.text.check import suggest
from colbuild.units import format_bytes, format_count, format_duration

if TYPE_CHECKING:
    from colbuild.interface.families import Family

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Plan:
    """The steps of a build.

    Attributes:
        of: The plan as the planner made it.
    """

    of: FamilyPlan
    _workspace: Workspace

    @property
    def steps(self) -> tuple[StepPlan, ...]:
        """Every step, with its state and the reason."""
        return self.of.steps

    @property
    def pending(self) -> tuple[str, ...]:
        """The steps that are not in the store."""
        return tuple(step.step.id for step in self.of.pending)

    @cached_property
    def estimates(self) -> Estimates:
        """The estimated time, memory and disk."""
        return estimate_plan(self.of, self._workspace)

    @python_hints()
    def save(self, to: StrPath) -> Path:
        """Writes it to a file, for `colbuild build --plan FILE`.

        Raises:
            ColbuildError: The file cannot be written.
        """
        from colbuild.plan.saved.plan_file import write_plan

        path = as_path(to, "the plan's file")
        write_plan(save_plan(self.of, self._workspace, self.estimates), path)
        return path

    def __repr__(self) -> str:
        return f"<Plan of {self.of.loaded.family.name}: {len(self.steps)} steps, {len(self.pending)} to run>"

    def __str__(self) -> str:
        from colbuild.report.screen.plan_view import print_plan
        from colbuild.report.screen.screen import as_text

        return as_text(lambda console: print_plan(self.of, self.estimates, console))

    def _repr_html_(self) -> str:
        from colbuild.report.screen.plan_view import PLAN_COLUMNS, plan_cells

        rows = [(step.step.id, *plan_cells(step, self.estimates)[1:]) for step in self.steps]
        return html_table(repr(self)[1:-1], PLAN_COLUMNS, rows)


@dataclass(frozen=True, eq=False)
class Model:
    """A model of a family; it stands for its checkpoint's folder wherever a path is expected.

    Attributes:
        row: What is known of it.
        folder: Its checkpoint, once it is built: a folder that transformers loads.
    """

    row: Row
    folder: Path

    @property
    def name(self) -> str:
        """Its name."""
        return self.row.name

    @property
    def kind(self) -> str:
        """AnsNet, bridge, anchor or DesNet."""
        return self.row.kind

    @property
    def shape(self) -> Shape:
        """The lengths of its axes."""
        return self.row.shape

    @property
    def parameters(self) -> int:
        """The number of stored parameters."""
        return self.row.parameters

    @property
    def perplexity(self) -> float | None:
        """On held-out text, per token; None if it was not measured yet."""
        return self.row.perplexity

    @property
    def bits_per_byte(self) -> float | None:
        """On held-out text; None if it was not measured yet."""
        return self.row.bits_per_byte

    @property
    def placed(self) -> tuple[Path, ...]:
        """The folders of its packages that are built."""
        return tuple(package.folder for package in self.row.packages)

    def __fspath__(self) -> str:
        if not (self.folder / "config.json").is_file():
            raise BuildError(
                f"'{self.name}' is not built yet: there is no {self.folder}", hint="build the family first"
            )
        return str(self.folder)

    def __repr__(self) -> str:
        made = f", {self.row.origin}" if self.row.origin else ""
        return f"<Model {self.name}: {format_count(self.parameters)} {self.kind}{made}>"

    def _repr_html_(self) -> str:
        from colbuild.report.screen.table_view import MODEL_COLUMNS, model_cells

        return html_facts(self.name, dict(zip(MODEL_COLUMNS, model_cells(self.row), strict=True)))


class NoSuchNameError(BuildError, KeyError):
    """A family has nothing of this name."""


@dataclass(frozen=True, eq=False)
class Named(Mapping[str, T], Generic[T]):
    """Things of a family by their names.

    Attributes:
        noun: What each of them is.
        family: The family's name.
        things: Name -> thing.
    """

    noun: str
    family: str
    things: Mapping[str, T]

    def __getitem__(self, name: str) -> T:
        if isinstance(name, str) and name in self.things:
            return self.things[name]
        likely = suggest(str(name), list(self.things))
        listed = ", ".join(self.things) or "none; build the family first"
        hint = f"did you mean '{likely}'?" if likely else f"{self.noun}s here: {listed}"
        raise NoSuchNameError(f"{self.family} has no {self.noun} '{name}'", hint=hint)

    def __iter__(self) -> Iterator[str]:
        return iter(self.things)

    def __len__(self) -> int:
        return len(self.things)

    def __repr__(self) -> str:
        return f"<{len(self)} {self.noun}s of {self.family}{': ' if self.things else ''}{', '.join(self)}>"


class Models(Named[Model]):
    """A family's models."""

    def _repr_html_(self) -> str:
        from colbuild.report.screen.table_view import MODEL_COLUMNS, model_cells

        return html_table(self.family, MODEL_COLUMNS, [model_cells(model.row) for model in self.values()])


class Packages(Named[Package]):
    """A family's packages."""

    def _repr_html_(self) -> str:
        rows = [(name, format_bytes(package.size), str(package.folder)) for name, package in self.items()]
        return html_table(self.family, ("package", "size", "folder"), rows)


@dataclass(frozen=True, eq=False)
class Status:
    """The state of a family.

    Attributes:
        family: Its name.
        pending: The steps that are not in the store.
        steps: How many there are in all.
        models: Its models.
    """

    family: str
    pending: tuple[str, ...]
    steps: int
    models: Models

    def __repr__(self) -> str:
        return f"<Status of {self.family}: {self.steps - len(self.pending)} of {self.steps} steps are in the store>"

    def _repr_html_(self) -> str:
        return f"<p>{escape(repr(self)[1:-1])}</p>{self.models._repr_html_()}"


@dataclass(frozen=True, eq=False)
class BuildResult:
    """The result of a build.

    Attributes:
        family: The family.
        plan: What was to be done.
        built: What the build left.
    """

    family: Family
    plan: FamilyPlan
    built: Built

    @property
    def ran(self) -> tuple[str, ...]:
        """The steps that ran; the others were in the store."""
        return self.built.ran

    @property
    def seconds(self) -> float:
        """The duration in seconds."""
        return self.built.seconds

    def __repr__(self) -> str:
        total, took = len(self.plan.graph.steps), format_duration(self.seconds)
        return f"<BuildResult of {self.family.name}: {len(self.ran)} of {total} steps ran, {took}>"

    def _repr_html_(self) -> str:
        return f"<p>{escape(repr(self)[1:-1])}</p>{self.family.models._repr_html_()}"


@dataclass(frozen=True, eq=False)
class Why:
    """The reason why a step runs, or does not.

    Attributes:
        step: All that is known of it.
    """

    step: Explanation

    def __repr__(self) -> str:
        return f"<Why {self.step.plan.step.id}: {self.step.plan.state.name.lower()}, {self.step.plan.why}>"

    def __str__(self) -> str:
        from colbuild.report.screen.explain_view import print_explanation
        from colbuild.report.screen.screen import as_text

        return as_text(lambda console: print_explanation(self.step, console))

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"
