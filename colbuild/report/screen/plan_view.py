"""Prints a plan; also as JSON."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from colbuild.arch import Shape
from colbuild.plan.changes.states import StepPlan
from colbuild.plan.cost.ansnet_reads import Reads
from colbuild.plan.cost.estimate import Estimates
from colbuild.plan.shapes.bridge_shape import Bridged
from colbuild.plan.shapes.chain import Chain, Distillation
from colbuild.plan.shapes.members import HEADS, Member, Placed
from colbuild.plan.steps.distill import elastic_of, lower_end
from colbuild.report.screen.alternatives_view import forms_line, remarks
from colbuild.report.screen.states_view import STYLES, WORDS, lock_line
from colbuild.spec.model.family import DesNet
from colbuild.spec.model.recipe import Recipe
from colbuild.spec.text.problems import in_line
from colbuild.units import format_bytes, format_count, format_duration

if TYPE_CHECKING:
    from colbuild.plan.family_plan import FamilyPlan


PLAN_COLUMNS: Final = ("step", "state", "why", "estimate")
"""What a plan tells of each step."""


_CHEAPER: Final = {
    "chain": "the chain is cheaper",
    "direct": "distilling directly is cheaper",
    "equal": "both cost about the same",
}


def print_plan(plan: FamilyPlan, estimates: Estimates, console: Console) -> None:
    """Prints a plan: the family, a line for each step, the sum, and the AnsNet's part in it."""
    console.print(_headline(plan), soft_wrap=True)
    console.print(lock_line(plan.lock), soft_wrap=True)
    # Printed at once: of thousands of models each call would cost.
    forms = [] if estimates.instead is None else [f"  {forms_line(estimates.instead)}"]
    if lines := [*_models(plan), *forms, *(f"  text {text.told}" for text in plan.texts.values())]:
        console.print("\n".join(lines), soft_wrap=True)
    for warning in plan.chain.warnings:
        console.print(f"warning: {warning}", soft_wrap=True, style="yellow")
    for problem in (*plan.warnings, *estimates.warnings):
        console.print(f"warning: {in_line(problem)}", soft_wrap=True, style="yellow")
    console.print()
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    step_column, state, why, estimate = PLAN_COLUMNS
    table.add_column(f"  {step_column}", no_wrap=True)
    table.add_column(state, no_wrap=True, justify="center")
    table.add_column(why, overflow="fold")
    table.add_column(estimate, no_wrap=True, justify="right")
    for step in plan.steps:
        style = STYLES[step.state]
        name, state, why, takes = plan_cells(step, estimates)
        table.add_row(Text(f"  {name}"), Text(state, style=style), Text(why), takes, style=style)
    console.print(table)
    console.print()
    console.print(_summary(plan, estimates), soft_wrap=True)
    if plan.pending and estimates.reads is not None:
        console.print(_ansnet_reads(estimates.reads), soft_wrap=True)
    if estimates.instead is not None:
        for remark in remarks(estimates.instead):
            console.print(remark, soft_wrap=True)


def plan_cells(step: StepPlan, estimates: Estimates) -> tuple[str, str, str, str]:
    """A step's cells in the columns of `PLAN_COLUMNS`."""
    told = estimates.steps.get(step.step.id)
    takes = "–" if told is None else "unknown" if told.seconds is None else format_duration(told.seconds)
    return _name(step), step.state.value, step.why, takes


def print_saved(path: Path, console: Console) -> None:
    """Says where a plan was saved, and what for."""
    console.print(f"Saved as {path}; 'colbuild build --plan {path}' builds it, or lists the changes.", soft_wrap=True)


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
    recipes = {anchor.name: recipe for anchor, recipe in zip(chain.anchors, chain.recipes, strict=True)}
    how |= {
        step.student.name: _distilled(step, chain)
        + _elastic(step, chain, recipes[step.student.name])
        + _on_policy(recipes[step.student.name])
        for step in chain.route
    }
    auto = ", placed automatically" if chain.automatic else ""
    lines = [] if chain.bridge is None else [_bridge(chain.top, chain.bridge)]
    lines += [
        (anchor.name, anchor.parameters, anchor.structure.shape, how[anchor.name] + auto) for anchor in chain.anchors
    ]
    lines += [
        (
            placed.member.name,
            placed.member.parameters,
            placed.member.structure.shape,
            _place(placed) + _package(desnet, placed),
        )
        for desnet, placed in zip(plan.loaded.family.desnets, chain.desnets, strict=True)
    ]
    width = max((len(name) for name, *_ in lines), default=0)
    return [
        f"  {name:<{width}}  {format_count(count):>6}  {shape.layers} layers, hidden {shape.hidden}, ffn {shape.ffn}, "
        f"{shape.heads} heads ({shape.kv_heads} kv)  {made}"
        for name, count, shape, made in lines
    ]


def _bridge(head: Member, bridge: Bridged) -> tuple[str, int, Shape, str]:
    start = "started from nothing"
    if bridge.asked.start == "transplant":
        near = f" approximately, since {' and '.join(bridge.approximate)}" if bridge.approximate else ""
        start = f"started from the AnsNet{near}"
    return head.name, head.parameters, head.structure.shape, f"{start}, as {bridge.reason}"


def _package(desnet: DesNet, placed: Placed) -> str:
    """How large the packages of a DesNet that is sized by its devices are going to be."""
    if desnet.max_package is None:
        return ""
    sizes = ", ".join(f"{profile} at most {format_bytes(size)}" for profile, size in placed.packages.items())
    return f", for max_package {format_bytes(desnet.max_package)}: {sizes}"


def _distilled(step: Distillation, chain: Chain) -> str:
    """From what an anchor is distilled, and what for if no DesNet needs it."""
    told = f"distilled from {_called(step.teacher.name)}"
    if step.required:
        return told
    onward = next(later.student.name for later in chain.route if later.teacher == step.student)
    return f"{told}, as a step towards {onward}"


def _elastic(step: Distillation, chain: Chain, recipe: Recipe) -> str:
    """Which shapes are trained with an anchor; why none are, if its recipe asks for some."""
    if recipe.elastic is None:
        return ""
    student, form = step.student.name, recipe.elastic.form
    if elastic_of(chain, student, recipe) is None:
        interval = "between the two" if form == "segment" else "right below it"
        return f", not elastic: no DesNet lies {interval}"
    if form == "segment":
        return ", elastic: with all shapes between the two"
    return f", elastic: with its sub-shapes down to {lower_end(chain, student).name}"


def _on_policy(recipe: Recipe) -> str:
    """How much of its text an anchor writes itself."""
    return "" if recipe.on_policy is None else f", on policy: writes {recipe.on_policy.share:.0%} of its text"


def _place(placed: Placed) -> str:
    if placed.smaller is None:
        return f"equals {_called(placed.larger.name)}"
    if not placed.mixed:
        return f"part of {_called(placed.larger.name)}"
    return f"between {_called(placed.larger.name)} and {_called(placed.smaller.name)}"


def _called(name: str) -> str:
    return HEADS.get(name, name)


def _name(step: StepPlan) -> str:
    op, name = step.step.op, step.step.name
    return f"{op:<12} {name}"


def _summary(plan: FamilyPlan, estimates: Estimates) -> str:
    counts = Counter(step.state for step in plan.steps)
    if len(plan.pending) == 0:
        return f"Plan: nothing to do, all {_plural(len(plan.steps), 'step')} are in the store."
    told = ", ".join(f"{counts[state]} {word}" for state, word in WORDS.items() if counts[state])
    return f"Plan: {told}. {_time(estimates)}, disk {format_bytes(estimates.disk)}, peak RAM {format_bytes(estimates.memory)}."


def _time(estimates: Estimates) -> str:
    """The sum of the times and what it rests on: "About 12 to 14 min (median of 4 runs)"."""
    if not estimates.basis:
        return "Nothing tells the time yet"
    without = f", without {_plural(estimates.untold, 'step')} of unknown size" if estimates.untold else ""
    return f"About {time_range(estimates.least, estimates.most)} ({estimates.basis}){without}"


def time_range(least: float, most: float) -> str:
    """Two durations as one: "4 s", "12 to 14 min", "30 s to 2 min", "2 min 5 s to 3 min 5 s"."""
    low, high = format_duration(least), format_duration(most)
    if low == high:
        return high
    number, *unit = low.split()
    return f"{number if len(unit) == 1 and high.split()[1:] == unit else low} to {high}"


def _ansnet_reads(reads: Reads) -> str:
    """How much the AnsNet is read for the whole family, beside distilling every DesNet from it."""
    times = {0: "", 1: ", once"}.get(reads.times, f", in {reads.times} steps")
    each = set(reads.direct_tokens)
    count = len(reads.direct_tokens)
    direct = (
        f"{count} x {format_count(each.pop())} tokens"
        if len(each) == 1
        else f"{format_count(sum(reads.direct_tokens))} tokens"
    )
    return (
        f"AnsNet reads: {format_count(reads.tokens)} tokens{times}. Distilling each DesNet directly: {direct}, "
        f"{reads.direct_flops / reads.flops:.1f}x the compute: {_CHEAPER[reads.cheaper]} (from FLOPs)."
    )


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
