"""The commands that explain a plan: why a step runs, where each value comes from, what depends on what."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from colbuild.cli.common import AsJson, Spec, StorePath, Targets, event_listener, open_console
from colbuild.report.screen.naming import DEFAULT_SPEC
from colbuild.report.screen.printed import write_json, write_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from colbuild.interface import FamilyPlan, Workspace

Words = Annotated[
    list[str],
    typer.Argument(
        metavar="STEP [SPEC]",
        help="The step, as 'colbuild plan' names it; or a model, a package or a corpus, for the step that makes it. "
        "A .yaml file after it is the family's.",
    ),
]


class GraphFormat(StrEnum):
    """The forms that a graph can be printed in."""

    ASCII = "ascii"
    MERMAID = "mermaid"
    DOT = "dot"
    SVG = "svg"


def why(words: Words, store: StorePath = None, as_json: AsJson = False) -> None:
    """Explain one step: what it reads, where each parameter was written, what changed, what needs it."""
    from colbuild import interface as api
    from colbuild.report.screen.explain_view import explanation_to_json, print_explanation

    step, spec = _step_and_spec(words)
    planned, workspace = _planned(spec, store)
    explained = api.explain_step(planned, workspace, step)
    if as_json:
        write_json(explanation_to_json(planned, explained))
    else:
        print_explanation(explained, open_console())


def show(
    spec: Spec = DEFAULT_SPEC,
    resolved: Annotated[
        bool, typer.Option("--resolved", help="Every value of the family, with the file and line it came from.")
    ] = False,
    store: StorePath = None,
    as_json: AsJson = False,
) -> None:
    """Show the shape of every model; with --resolved, every value of the spec and where it was written."""
    from colbuild import interface as api
    from colbuild.report.screen import explain_view as view

    if resolved:
        loaded = api.load_family(spec)
        if as_json:
            write_json(view.resolved_to_json(loaded))
        else:
            view.print_resolved(loaded, open_console())
        return
    planned, workspace = _planned(spec, store)
    rows = api.family_shapes(planned, workspace)
    if as_json:
        write_json(view.shapes_to_json(planned, rows))
    else:
        view.print_shapes(planned, rows, open_console())


def graph(
    spec: Spec = DEFAULT_SPEC,
    form: Annotated[
        GraphFormat, typer.Option("--format", help="A tree, Mermaid for Markdown, dot for Graphviz, or a picture.")
    ] = GraphFormat.ASCII,
    target: Targets = None,
    store: StorePath = None,
) -> None:
    """Draw the steps and what each is made of, coloured by what a build would do."""
    from colbuild.report.graph import FORMATS
    from colbuild.report.screen.explain_view import print_tree

    planned, _ = _planned(spec, store, target or ())
    if form is GraphFormat.ASCII:
        print_tree(planned, open_console())
    else:
        write_text(FORMATS[form.value](planned.steps, planned.loaded.family.name))


def _planned(spec: Path, store: Path | None, targets: Sequence[str] = ()) -> tuple[FamilyPlan, Workspace]:
    from colbuild import interface as api

    loaded = api.load_family(spec)
    workspace = api.open_workspace(loaded, store)
    with event_listener(open_console(stderr=True), as_json=False) as listener:
        return api.make_plan(loaded, workspace, listener, targets), workspace


def _step_and_spec(words: list[str]) -> tuple[str, Path]:
    """A step's id has a space in it, and need not be quoted: `why distill a100 specs/family.yaml`."""
    *step, last = words
    if step and Path(last).suffix in (".yaml", ".yml"):
        return " ".join(step), Path(last)
    return " ".join(words), DEFAULT_SPEC
