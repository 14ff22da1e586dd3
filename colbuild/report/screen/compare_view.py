"""Prints the plans of several families, and a plan compared with a git revision; also as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from colbuild.plan.changes.states import State
from colbuild.report.screen.states_view import STYLES, WORDS

if TYPE_CHECKING:
    from colbuild.plan.changes.many import Together
    from colbuild.plan.changes.since import Since
    from colbuild.plan.family_plan import FamilyPlan

SINCE_FORMAT = "colbuild.since.v1"
PLANS_FORMAT = "colbuild.plans.v1"


def print_since(plan: FamilyPlan, since: Since, console: Console) -> None:
    """Prints a line for each step that is not as it was, and the sum."""
    console.print(Text.assemble((plan.loaded.family.name, "bold"), f" since {since.revision}"), soft_wrap=True)
    console.print()
    if since.rebuilt:
        table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
        table.add_column("  step", no_wrap=True)
        table.add_column("state", no_wrap=True, justify="center")
        table.add_column("why", overflow="fold")
        for rebuild in since.rebuilt:
            op, name = rebuild.step.op, rebuild.step.name
            why = "; ".join(rebuild.reasons) + ("  (in the store already)" if rebuild.built else "")
            style = STYLES[rebuild.state]
            table.add_row(Text(f"  {op:<12} {name}"), Text(rebuild.state.value), Text(why), style=style)
        console.print(table)
        console.print()
    if since.gone and plan.selection is None:
        console.print(f"No longer built: {', '.join(since.gone)}.", soft_wrap=True)
    counts = Counter(rebuild.state for rebuild in since.rebuilt)
    told = [
        f"{counts[state]} {WORDS[state]}" for state in (State.NEW, State.CHANGED, State.CONDITIONAL) if counts[state]
    ]
    built = len(since.rebuilt) - len(since.pending)
    stored = f" {built} of them {'is' if built == 1 else 'are'} in the store already." if built else ""
    console.print(f"Since {since.revision}: {', '.join([*told, f'{since.same} as before'])}.{stored}", soft_wrap=True)


def since_to_json(plan: FamilyPlan, since: Since) -> dict[str, Any]:
    """The comparison as JSON values."""
    return {
        "format": SINCE_FORMAT,
        "family": plan.loaded.family.name,
        "since": since.revision,
        "steps": [
            {
                "id": rebuild.step.id,
                "state": WORDS[rebuild.state],
                "reasons": list(rebuild.reasons),
                "in_store": rebuild.built,
            }
            for rebuild in since.rebuilt
        ],
        "same": since.same,
        "gone": list(since.gone) if plan.selection is None else [],
    }


def print_sum(sum_: Together, console: Console) -> None:
    """Prints what several plans come to, and the steps that they share."""
    told = ", ".join(f"{sum_.states[state]} {word}" for state, word in WORDS.items() if sum_.states.get(state))
    shared = f"; {len(sum_.shared)} shared steps are counted once" if sum_.shared else ""
    families = "1 family" if len(sum_.families) == 1 else f"{len(sum_.families)} families"
    console.print(f"Together: {families}, {sum_.steps} different steps{shared}: {told}.", soft_wrap=True)
    groups: dict[tuple[str, ...], list[str]] = {}
    for step in sum_.shared:
        groups.setdefault(tuple(step.steps), []).append(next(iter(step.steps.values())))
    for sharing, steps in groups.items():
        console.print(f"  shared by {', '.join(sharing)}: {', '.join(steps)}", soft_wrap=True)


def plans_to_json(saved: Sequence[Mapping[str, Any]], sum_: Together) -> dict[str, Any]:
    """Several saved plans and their sum as JSON values."""
    return {
        "format": PLANS_FORMAT,
        "plans": list(saved),
        "steps": sum_.steps,
        "states": {word: sum_.states.get(state, 0) for state, word in WORDS.items()},
        "shared": [{"steps": dict(step.steps), "state": WORDS[step.state]} for step in sum_.shared],
    }
