"""The commands that explain a plan: `why`, `show` and `graph`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

import colbuild
from colbuild.cli.common import AsJson, Spec, StorePath, Targets, name_and_spec, open_console, planned
from colbuild.report.screen.naming import DEFAULT_SPEC
from colbuild.report.screen.printed import write_json, write_text

Words = Annotated[
    list[str],
    typer.Argument(
        metavar="STEP [SPEC]",
        help="A step, as 'colbuild plan' names it; or a model, a package or a corpus, for the step that makes it. "
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
    """Explain one step: its state, inputs and parameters with their lines, and the steps that need it."""
    from colbuild.report.screen.explain_view import explanation_to_json, print_explanation

    step, spec = name_and_spec(words)
    found, workspace = planned(spec or DEFAULT_SPEC, store)
    explained = colbuild.explain_step(found, workspace, step)
    if as_json:
        write_json(explanation_to_json(found, explained))
    else:
        print_explanation(explained, open_console())


def show(
    spec: Spec = DEFAULT_SPEC,
    resolved: Annotated[
        bool, typer.Option("--resolved", help="Print every value of the family, with its file and line.")
    ] = False,
    store: StorePath = None,
    as_json: AsJson = False,
) -> None:
    """Show the shape of every model; with --resolved, every value of the spec with its file and line."""
    from colbuild.report.screen import explain_view as view

    if resolved:
        loaded = colbuild.load_family(spec)
        if as_json:
            write_json(view.resolved_to_json(loaded))
        else:
            view.print_resolved(loaded, open_console())
        return
    found, workspace = planned(spec, store)
    rows = colbuild.family_shapes(found, workspace)
    if as_json:
        write_json(view.shapes_to_json(found, rows))
    else:
        view.print_shapes(found, rows, open_console())


def graph(
    spec: Spec = DEFAULT_SPEC,
    form: Annotated[
        GraphFormat, typer.Option("--format", help="A tree, Mermaid for Markdown, dot for Graphviz, or an SVG image.")
    ] = GraphFormat.ASCII,
    target: Targets = None,
    store: StorePath = None,
) -> None:
    """Draw the steps and their inputs, coloured by state."""
    from colbuild.report.graph import FORMATS
    from colbuild.report.screen.explain_view import print_tree

    found, _ = planned(spec, store, target or ())
    if form is GraphFormat.ASCII:
        print_tree(found, open_console())
    else:
        write_text(FORMATS[form.value](found.steps, found.loaded.family.name))
