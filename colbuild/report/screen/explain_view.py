"""Prints explanations of steps, shapes and values; also as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from colbuild.plan.changes.states import State, StepPlan
from colbuild.plan.changes.why import Explanation, InputUse
from colbuild.report.graph import tree_lines
from colbuild.report.screen.states_view import STYLES, WORDS
from colbuild.run.building.family_rows import Row
from colbuild.spec import LoadedFamily
from colbuild.spec.project import origins as resolved
from colbuild.spec.project.origins import scalar_text
from colbuild.units import format_bytes, format_count, format_duration

if TYPE_CHECKING:
    from colbuild.plan.family_plan import FamilyPlan

WHY_FORMAT = "colbuild.why.v1"
RESOLVED_FORMAT = "colbuild.resolved.v1"
SHAPES_FORMAT = "colbuild.shapes.v1"

_LISTED = 12
"""More steps than this are counted instead of named."""


# -- why --------------------------------------------------------------------------------------------------------------


def print_explanation(explained: Explanation, console: Console) -> None:
    """Prints all that is known of one step."""
    plan = explained.plan
    style = STYLES[plan.state]
    console.print(Text.assemble((plan.step.id, "bold"), "  ", (f"{plan.state.value} {WORDS[plan.state]}", style)))
    facts = [("why", why) for why in explained.differences or (plan.why,)]
    later = "unknown until its inputs are built"
    facts += [("key", plan.key or later), ("result", plan.output or ("not in the store" if plan.key else later))]
    facts.append(("last run", _last_run(explained)))
    if made_with := _made_with(explained.last.ledger if explained.last else {}):
        facts.append(("made with", made_with))
    _section(
        console, None, [(name if index == 0 or name != "why" else "", text) for index, (name, text) in enumerate(facts)]
    )
    _section(console, "reads", [(use.role, *_input(use)) for use in explained.inputs])
    _section(
        console,
        "parameters",
        [(parameter.name, scalar_text(parameter.value), parameter.origin) for parameter in explained.parameters],
    )
    needed = [("needed by", _steps(explained.needed_by))]
    if explained.after_those:
        needed.append(("and then", _steps(explained.after_those)))
    console.print()
    _section(console, None, needed)


def explanation_to_json(plan: FamilyPlan, explained: Explanation) -> dict[str, Any]:
    """Returns an explanation as JSON values."""
    step, last = explained.plan, explained.last
    return {
        "format": WHY_FORMAT,
        "family": plan.loaded.family.name,
        "step": step.step.id,
        "op": step.step.op,
        "state": step.state.name.lower(),
        "why": step.why,
        "key": step.key,
        "output": step.output,
        "inputs": [asdict(use) for use in explained.inputs],
        "parameters": [asdict(parameter) for parameter in explained.parameters],
        "differences": list(explained.differences),
        "last_run": None
        if last is None
        else {
            "key": last.key,
            "built_at": last.built_at,
            "seconds": last.seconds,
            "size": last.size,
            "made_with": _noted(last.ledger),
        },
        "needed_by": list(explained.needed_by),
        "after_those": list(explained.after_those),
    }


def _last_run(explained: Explanation) -> str:
    last = explained.last
    if last is None:
        return "never here"
    when = datetime.fromtimestamp(last.built_at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    # What came from a remote cache was timed on another machine.
    took = f"took {format_duration(last.seconds)}" if last.seconds else "fetched from a remote cache"
    return f"{when}, {took}, made {format_bytes(last.size)}"


def _noted(ledger: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a run was made with, as its record tells; None where it tells nothing, as those of older versions do."""
    found = ledger.get("made_with")
    if not isinstance(found, Mapping):
        return None
    training = {key: ledger[key] for key in ("micro_batch", "compiled", "device") if key in ledger}
    return {**found, **training}


def _made_with(ledger: Mapping[str, Any]) -> str:
    """What is in no key and decided the last bits of a result, in a line."""
    noted = _noted(ledger) or {}
    environment = noted.pop("environment", {})
    told = []
    if "threads" in noted:
        told.append(f"{noted['threads']} thread" + ("" if noted["threads"] == 1 else "s"))
    if "micro_batch" in noted:
        told.append(f"micro_batch {noted['micro_batch']}")
    told += ["compiled"] if noted.get("compiled") is True else []
    told += [str(noted[key]) for key in ("device", "processor", "system") if noted.get(key)]
    if noted.get("torch"):
        told.append(f"torch {noted['torch']}")
    if isinstance(environment, Mapping):
        told += [f"{name}={value}" for name, value in environment.items()]
    return ", ".join(told)


def _input(use: InputUse) -> tuple[str, str]:
    sign = f"{use.state} " if use.state else ""
    return f"{sign}{use.made_by}", use.digest or ("not known yet" if use.state else "unknown until it is fetched")


def _steps(steps: Sequence[str]) -> str:
    if not steps:
        return "no other step"
    more = f" and {len(steps) - _LISTED} more" if len(steps) > _LISTED else ""
    return ", ".join(steps[:_LISTED]) + more


def _section(console: Console, title: str | None, rows: Sequence[Sequence[str]]) -> None:
    """Columns that line up, below a title; nothing without rows."""
    if not rows:
        return
    if title:
        console.print()
        console.print(Text(title, style="bold"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        console.print(Text.assemble("  ", (cells[0], "dim"), "  ", "  ".join(cells[1:]).rstrip()), soft_wrap=True)


# -- show -------------------------------------------------------------------------------------------------------------


def print_resolved(loaded: LoadedFamily, console: Console) -> None:
    """Prints the family as YAML, each value's origin beside it."""
    for text, comment in resolved.with_origins(resolved.resolved_lines(loaded)):
        console.print(Text.assemble(text, (comment, "dim")), soft_wrap=True)


def resolved_to_json(loaded: LoadedFamily) -> dict[str, Any]:
    """Every value of the family with its origin, as JSON values."""
    return {"format": RESOLVED_FORMAT, "family": loaded.family.name, "values": resolved.resolved_to_json(loaded)}


def print_shapes(plan: FamilyPlan, rows: Sequence[Row], console: Console) -> None:
    """Prints the shape of every model of the family."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("model", "made from"):
        table.add_column(name, no_wrap=True)
    for name in ("params", "of AnsNet", "layers", "hidden", "ffn", "heads", "kv heads"):
        table.add_column(name, no_wrap=True, justify="right")
    whole = plan.chain.ansnet.parameters
    architecture = plan.chain.top.structure.architecture.name
    console.print(Text.assemble((plan.loaded.family.name, "bold"), f" · {architecture}\n"))
    for row in rows:
        shape = row.shape
        lengths = (shape.layers, shape.hidden, shape.ffn, shape.heads, shape.kv_heads)
        table.add_row(
            row.name,
            row.origin or row.kind,
            format_count(row.parameters),
            f"{row.parameters / whole:.0%}",
            *map(str, lengths),
            style="dim" if row.kind == "anchor" else "",
        )
    console.print(table)


def shapes_to_json(plan: FamilyPlan, rows: Sequence[Row]) -> dict[str, Any]:
    """The shape of every model, as JSON values."""
    return {
        "format": SHAPES_FORMAT,
        "family": plan.loaded.family.name,
        "architecture": plan.chain.top.structure.architecture.name,
        "models": [
            {
                "name": row.name,
                "kind": row.kind,
                "origin": row.origin,
                "parameters": row.parameters,
                "shape": asdict(row.shape),
            }
            for row in rows
        ],
    }


# -- graph and targets ------------------------------------------------------------------------------------------------


def print_tree(plan: FamilyPlan, console: Console) -> None:
    """Prints the steps as a tree, in the colours of the plan."""
    for line in tree_lines(plan.steps, plan.loaded.family.name):
        console.print(Text(line.text, style=STYLES[line.state] if line.state else "bold"), soft_wrap=True)


def print_left(plan: FamilyPlan, left: Sequence[StepPlan], console: Console) -> None:
    """Says what a selection leaves; nothing where everything was asked for."""
    if plan.selection is None:
        return
    asked = " ".join(f"--target {target}" for target in plan.selection.targets)
    pending = [step.step.id for step in left if step.state is not State.CACHED]
    steps = "1 other step" if len(pending) == 1 else f"{len(pending)} other steps"
    name = plan.loaded.family.name
    told = f"leaves {steps} of {name}: {_steps(pending)}" if pending else f"leaves nothing of {name} undone"
    console.print(f"{asked} {told}.", soft_wrap=True)
