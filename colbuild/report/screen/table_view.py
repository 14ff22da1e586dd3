"""The family's table: size, quality and packages of each model, next to the AnsNet's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table

from colbuild.plan.shapes.rounded_ansnet import Alternatives
from colbuild.report.screen.alternatives_view import form_cells, remarks
from colbuild.report.screen.ledger_view import print_trainings, reference
from colbuild.report.screen.naming import naming
from colbuild.run.building.family_rows import Row
from colbuild.spec.model.family import is_another_text
from colbuild.units import format_bytes, format_count, format_duration

if TYPE_CHECKING:
    from colbuild.plan.family_plan import FamilyPlan
    from colbuild.run.building.building import Built

STATUS_FORMAT = "colbuild.status.v1"
_NONE = "–"

MODEL_COLUMNS: Final = ("model", "made from", "params", "shape", "bits/byte", "agrees", "KL", "package")
"""What a family's table tells of each model."""
_LEFT: Final = ("model", "made from", "package")


def print_built(plan: FamilyPlan, built: Built, console: Console) -> None:
    """Prints what a build left: the table, then what was done."""
    total = len(plan.graph.steps)
    print_rows(built.rows, built.instead, console, measured_on(plan))
    if not built.ran:
        console.print(f"Nothing to do: all {total} steps of {plan.loaded.family.name} are in the store.")
        return
    console.print(
        f"Built {plan.loaded.family.name}: {len(built.ran)} of {total} steps ran, {total - len(built.ran)} were in the "
        f"store, {format_duration(built.seconds)}.",
        soft_wrap=True,
    )
    packages = [package for row in built.rows if row.kind == "DesNet" for package in row.packages]
    if packages:
        # The best one that is measured, else the first.
        best = min(packages, key=lambda package: inf if package.bits_per_byte is None else package.bits_per_byte)
        example = f"colbuild run {_relative(best.folder)} --raw --prompt 'The city of Paris is'"
        console.print(f"Try one: {example}", soft_wrap=True)


def print_status(plan: FamilyPlan, rows: Sequence[Row], instead: Alternatives, console: Console) -> None:
    """Prints how the family stands."""
    print_rows(rows, instead, console, measured_on(plan))
    print_trainings(rows, console)
    pending = len(plan.pending)
    name, spec = plan.loaded.family.name, plan.loaded.path
    unplaced = [f"{row.name}/{profile}" for row in rows for profile in row.unplaced]
    if unplaced:
        console.print(
            naming(
                f"Built, but not in out/{name}/: {', '.join(unplaced)}; 'colbuild build' puts {_them(unplaced)} there.",
                spec,
            ),
            soft_wrap=True,
        )
    if pending:
        console.print(
            naming(
                f"{name}: {len(plan.steps) - pending} of {len(plan.steps)} steps are in the store; "
                "'colbuild plan' shows the rest, 'colbuild build' builds it.",
                spec,
            ),
            soft_wrap=True,
        )
    else:
        console.print(f"{name}: all {len(plan.steps)} steps are in the store.")


def _them(things: Sequence[str]) -> str:
    return "it" if len(things) == 1 else "them"


def model_cells(row: Row) -> tuple[str, ...]:
    """A model's cells in the columns of `MODEL_COLUMNS`."""
    return (
        row.name,
        row.origin or row.kind,
        format_count(row.parameters),
        f"{row.shape.layers}x{row.shape.ffn}",
        _NONE if row.bits_per_byte is None else f"{row.bits_per_byte:.3f}",
        _NONE if row.agreement is None else f"{row.agreement:.0%}",
        _NONE if row.kl is None else f"{row.kl:.3f}",
        "\n".join(f"{format_bytes(package.size)}  {package.profile}" for package in row.packages) or _NONE,
    )


def measured_on(plan: FamilyPlan) -> str:
    """The text that models are measured on, in words."""
    train, held = plan.loaded.family.data.train, plan.loaded.family.data.eval
    if is_another_text(held, train):
        return "the evaluation's text"
    if held.split == "heldout" and train.split == "train":
        return "held-out text"
    return "text that anchors are trained on" if held.split == train.split else "text that anchors may be trained on"


def print_rows(rows: Sequence[Row], instead: Alternatives, console: Console, text: str) -> None:
    """Prints the table, with the AnsNet in fewer bits below its models."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in MODEL_COLUMNS:
        table.add_column(name, justify="left" if name in _LEFT else "right", no_wrap=True)
    for row in rows:
        table.add_row(*model_cells(row), style="dim" if row.kind == "anchor" else "")
    for form in instead.forms:
        table.add_row(*form_cells(form), style="dim")
    console.print()
    console.print(table)
    console.print()
    if any(row.bits_per_byte is not None for row in rows):
        head = reference(rows)
        console.print(
            f"shape: layers x ffn; bits/byte: on {text}, lower is better; "
            f"agrees: most likely next token equals {head}'s; KL: nats per token to {head}",
            soft_wrap=True,
        )
    for remark in remarks(instead):
        console.print(remark, soft_wrap=True)


def status_to_json(plan: FamilyPlan, rows: Sequence[Row], instead: Alternatives) -> dict[str, Any]:
    """Returns the state of a family as JSON values."""
    return {
        "format": STATUS_FORMAT,
        "family": plan.loaded.family.name,
        "steps": len(plan.steps),
        "pending": [step.step.id for step in plan.pending],
        "models": [
            {
                **asdict(row),
                "packages": [{**asdict(package), "folder": str(package.folder)} for package in row.packages],
            }
            for row in rows
        ],
        "instead": asdict(instead),
    }


def _relative(path: Path) -> Path:
    """A path as one would type it here."""
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path
