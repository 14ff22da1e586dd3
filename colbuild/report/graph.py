"""The graph of a family's steps as text: a tree for terminals, Mermaid for pages, dot for Graphviz.

All forms draw the same edges: every edge from a model to what is made of it, and of the others (the text and the model to
compare with) only those that no other path implies. `colbuild why` names every input of a step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from colbuild.plan.changes.states import State, StepPlan
from colbuild.plan.drawing.build_graph import digraph
from colbuild.report.graph_svg import Box, svg

_BESIDES: Final = frozenset({"corpus", "heldout", "reference", "tokenizer"})
"""Roles of inputs that a step's result is not made of."""

WORDS: Final[Mapping[State, str]] = {
    State.CACHED: "cached",
    State.NEW: "new",
    State.CHANGED: "changed",
    State.CONDITIONAL: "conditional",
}
"""A state in one word, in the order of a legend."""

_FILLS: Final[Mapping[State, tuple[str, str]]] = {
    State.CACHED: ("#f1f3f5", "#868e96"),
    State.NEW: ("#d3f9d8", "#2b8a3e"),
    State.CHANGED: ("#fff3bf", "#b35c00"),
    State.CONDITIONAL: ("#d0ebff", "#1864ab"),
}
"""Fill and outline of a step's box, by state."""


@dataclass(frozen=True)
class TreeLine:
    """A line of the tree, and the state of the step in it; None for what is no step."""

    text: str
    state: State | None


def drawn_edges(steps: Sequence[StepPlan]) -> list[tuple[str, str]]:
    """The edges that are drawn, from a step to one that needs it, in the order of the steps."""
    import networkx

    graph = digraph([plan.step for plan in steps])
    needed = networkx.transitive_reduction(graph)
    edges: dict[tuple[str, str], None] = {}
    for plan in steps:
        for role, source in plan.step.inputs.items():
            if role not in _BESIDES or needed.has_edge(source, plan.step.id):
                edges[source, plan.step.id] = None
    return list(edges)


# -- a tree -----------------------------------------------------------------------------------------------------------


def tree_lines(steps: Sequence[StepPlan], title: str) -> list[TreeLine]:
    """The steps as a tree in ASCII: each stands once, below the last made of the models that it is made of.

    What else it needs is named behind it.
    """
    plans = {plan.step.id: plan for plan in steps}
    parents = _parents(steps)
    besides: dict[str, list[str]] = {}
    for source, target in drawn_edges(steps):
        if parents[target] != source:
            besides.setdefault(target, []).append(source)
    children: dict[str | None, list[str]] = {}
    for step_id, parent in parents.items():
        children.setdefault(parent, []).append(step_id)
    lines = [TreeLine(f"{title}: {_legend(steps)}", None)]
    # An own stack: a chain may be longer than Python's.
    stack = [(step_id, "", "") for step_id in reversed(children.get(None, []))]
    while stack:
        step_id, lead, below = stack.pop()
        with_others = f"  (with {', '.join(besides[step_id])})" if step_id in besides else ""
        lines.append(TreeLine(f"{lead}{plans[step_id].state.value} {step_id}{with_others}", plans[step_id].state))
        inner = children.get(step_id, [])
        stack += [
            (
                child,
                f"{below}`- " if child == inner[-1] else f"{below}|- ",
                below + ("   " if child == inner[-1] else "|  "),
            )
            for child in reversed(inner)
        ]
    return lines


def _parents(steps: Sequence[StepPlan]) -> dict[str, str | None]:
    """Step -> the step it stands below: of what it is made of, that which can be made last."""
    import networkx

    graph = digraph([plan.step for plan in steps])
    depth = {step: level for level, group in enumerate(networkx.topological_generations(graph)) for step in group}
    parents: dict[str, str | None] = {}
    for plan in steps:
        inputs = plan.step.inputs
        made_of = [step for role, step in inputs.items() if role not in _BESIDES] or list(inputs.values())
        parents[plan.step.id] = max(made_of, key=depth.__getitem__, default=None)
    return parents


def _legend(steps: Sequence[StepPlan]) -> str:
    count = f"{len(steps)} step{'' if len(steps) == 1 else 's'}"
    present = {plan.state for plan in steps}
    return f"{count} ({', '.join(f'{state.value} {word}' for state, word in WORDS.items() if state in present)})"


# -- Mermaid and dot --------------------------------------------------------------------------------------------------


def mermaid(steps: Sequence[StepPlan], title: str) -> str:
    """A Mermaid flowchart, states as classes; renders in the Markdown of the usual code hosts."""
    names = {plan.step.id: f"s{index}" for index, plan in enumerate(steps)}
    lines = [f"%% {_one_line(title)}", "flowchart LR"]
    lines += [
        # The state stands in words: a label that begins with a plus sign is a list to Mermaid 11, which refuses it.
        f'  {names[plan.step.id]}["{_mermaid_text(plan.step.id)}<br/>{WORDS[plan.state]}"]:::{WORDS[plan.state]}'
        for plan in steps
    ]
    lines += [f"  {names[source]} --> {names[target]}" for source, target in drawn_edges(steps)]
    lines += [
        f"  classDef {WORDS[state]} fill:{fill},stroke:{line},color:#212529" for state, (fill, line) in _FILLS.items()
    ]
    return "\n".join(lines) + "\n"


def dot(steps: Sequence[StepPlan], title: str) -> str:
    """A graph for Graphviz, states as colours, reasons as tooltips: `colbuild graph --format dot | dot -Tpdf`."""
    lines = [
        f"digraph {_dot_text(title)} {{",
        "  rankdir=LR;",
        '  node [shape=box, style="rounded,filled", fontname="Helvetica", fontsize=11];',
    ]
    for plan in steps:
        fill, line = _FILLS[plan.state]
        label = _dot_text(f"{plan.state.value} {plan.step.id}")
        lines.append(
            f"  {_dot_text(plan.step.id)} [label={label}, class={_dot_text(WORDS[plan.state])}, fillcolor={_dot_text(fill)}, "
            f"color={_dot_text(line)}, tooltip={_dot_text(plan.why)}];"
        )
    lines += [f"  {_dot_text(source)} -> {_dot_text(target)};" for source, target in drawn_edges(steps)]
    return "\n".join([*lines, "}"]) + "\n"


def svg_graph(steps: Sequence[StepPlan], title: str) -> str:
    """A picture that any browser shows: layers from left to right, states as colours, reasons as tooltips."""
    present = {plan.state for plan in steps}
    boxes = [
        Box(plan.step.id, plan.step.op, _name(plan), plan.state.value, plan.why, *_FILLS[plan.state]) for plan in steps
    ]
    legend = [(f"{state.value} {word}", *_FILLS[state]) for state, word in WORDS.items() if state in present]
    return svg(boxes, drawn_edges(steps), title, legend)


FORMATS: Final[Mapping[str, Callable[[Sequence[StepPlan], str], str]]] = {
    "mermaid": mermaid,
    "dot": dot,
    "svg": svg_graph,
}
"""Each form but the tree by the name that `--format` knows it by; a form takes the steps and a title."""


def _name(plan: StepPlan) -> str:
    return plan.step.name


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _mermaid_text(text: str) -> str:
    """Mermaid reads #name; and #number; as characters, everything else between quotes as it is."""
    marks = {"#": "#35;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "&": "#amp;", "`": "#96;"}
    return "".join(marks.get(char, char) for char in _one_line(text))


def _dot_text(text: str) -> str:
    escaped = _one_line(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
