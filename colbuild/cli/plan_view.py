"""The plan as people read it, and as machines do."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from colbuild.plan.chain import Chain, Distillation
from colbuild.plan.members import Placed
from colbuild.plan.states import State, StepPlan
from colbuild.units import format_count, format_duration

if TYPE_CHECKING:
    from colbuild.api import FamilyPlan

PLAN_FORMAT = "colbuild.plan.v1"

_STYLES = {State.CACHED: "dim", State.NEW: "green", State.CHANGED: "yellow", State.CONDITIONAL: "cyan"}
_WORDS = {State.CHANGED: "changed", State.NEW: "new", State.CONDITIONAL: "conditional", State.CACHED: "cached"}


def print_plan(plan: FamilyPlan, console: Console) -> None:
    """Prints a plan: the family, a line for each step, and the sum."""
    console.print(_headline(plan), soft_wrap=True)
    for line in (*_models(plan), *(f"warning: {warning}" for warning in plan.chain.warnings)):
        console.print(line, soft_wrap=True, style="yellow" if line.startswith("warning") else "")
    console.print()
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    table.add_column("  step", no_wrap=True)
    table.add_column("state", no_wrap=True, justify="center")
    table.add_column("why", overflow="fold")
    table.add_column("last run", no_wrap=True, justify="right")
    for step in plan.steps:
        took = format_duration(step.seconds) if step.seconds is not None and step.state is not State.CACHED else "–"
        style = _STYLES[step.state]
        table.add_row(Text(f"  {_name(step)}"), Text(step.state.value, style=style), Text(step.why), took, style=style)
    console.print(table)
    console.print()
    console.print(_summary(plan), soft_wrap=True)


def plan_to_json(plan: FamilyPlan) -> dict[str, Any]:
    """The plan as JSON values."""
    chain = plan.chain
    return {
        "format": PLAN_FORMAT,
        "family": plan.loaded.family.name,
        "models": [
            {"name": member.name, "parameters": member.parameters, "shape": asdict(member.structure.shape)}
            for member in (chain.ansnet, *chain.anchors, *(placed.member for placed in chain.desnets))
        ],
        "route": [
            {"student": step.student.name, "teacher": step.teacher.name, "flops": step.flops} for step in chain.route
        ],
        "not_built": [{"name": unbuilt.anchor.name, "why": unbuilt.reason} for unbuilt in chain.unbuilt],
        "warnings": list(chain.warnings),
        "steps": [
            {
                "id": step.step.id,
                "op": step.step.op,
                "state": step.state.name.lower(),
                "why": step.why,
                "key": step.key,
                "last_seconds": step.seconds,
            }
            for step in plan.steps
        ],
    }


def _headline(plan: FamilyPlan) -> Text:
    chain = plan.chain
    profiles = {profile for _, profile in plan.graph.packages}
    parts = (
        f"AnsNet {format_count(chain.ansnet.parameters)} ({chain.ansnet.structure.architecture.name})",
        _plural(len(chain.route), "anchor"),
        _plural(len(chain.desnets), "DesNet"),
        _plural(len(profiles), "profile"),
    )
    return Text.assemble((plan.loaded.family.name, "bold"), " · ", " · ".join(parts))


def _models(plan: FamilyPlan) -> list[str]:
    """A line for each anchor and DesNet: its solved shape."""
    chain = plan.chain
    how = {unbuilt.anchor.name: f"not built: {unbuilt.reason}" for unbuilt in chain.unbuilt}
    how |= {step.student.name: _distilled(step, chain) for step in chain.route}
    lines = [(anchor.name, anchor.parameters, anchor.structure.shape, how[anchor.name]) for anchor in chain.anchors]
    lines += [
        (placed.member.name, placed.member.parameters, placed.member.structure.shape, _place(placed))
        for placed in chain.desnets
    ]
    width = max((len(name) for name, *_ in lines), default=0)
    return [
        f"  {name:<{width}}  {format_count(count):>6}  {shape.layers} layers, hidden {shape.hidden}, ffn {shape.ffn}, "
        f"{shape.heads} heads ({shape.kv_heads} kv)  {made}"
        for name, count, shape, made in lines
    ]


def _distilled(step: Distillation, chain: Chain) -> str:
    """From what an anchor is distilled, and what for if no DesNet needs it."""
    told = f"distilled from {_called(step.teacher.name)}"
    if step.required:
        return told
    onward = next(later.student.name for later in chain.route if later.teacher == step.student)
    return f"{told}, as a step towards {onward}"


def _place(placed: Placed) -> str:
    if placed.smaller is None:
        return f"equals {_called(placed.larger.name)}"
    return f"between {_called(placed.larger.name)} and {_called(placed.smaller.name)}"


def _called(name: str) -> str:
    return "the AnsNet" if name == "ansnet" else name


def _name(step: StepPlan) -> str:
    op, _, name = step.step.id.partition(" ")
    return f"{op:<12} {name}"


def _summary(plan: FamilyPlan) -> str:
    counts = Counter(step.state for step in plan.steps)
    if len(plan.pending) == 0:
        return f"Plan: nothing to do, all {_plural(len(plan.steps), 'step')} are in the store."
    told = ", ".join(f"{counts[state]} {word}" for state, word in _WORDS.items() if counts[state])
    known = [step.seconds for step in plan.pending if step.seconds is not None]
    missing = len(plan.pending) - len(known)
    if not known:
        return f"Plan: {told}. No estimate of the time: none of these steps has run here yet."
    without = f", without {_plural(missing, 'step')} that never ran here" if missing else ""
    return f"Plan: {told}. About {format_duration(sum(known))}{without} (from each step's last run)."


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
