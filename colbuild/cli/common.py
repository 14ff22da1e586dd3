"""Options and console that all commands share."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import colbuild
from colbuild.report.screen.naming import DEFAULT_SPEC
from colbuild.report.screen.printed import shown

if TYPE_CHECKING:
    from rich.console import Console

    from colbuild import FamilyPlan, LockMode, Workspace
    from colbuild.events import Listener
    from colbuild.progress import Report

Spec = Annotated[Path, typer.Argument(help="The family's file.", show_default=True)]
DEFAULT_SPECS = [DEFAULT_SPEC]
Specs = Annotated[list[Path], typer.Argument(metavar="[SPEC]...", help="The families' files.", show_default=True)]
StorePath = Annotated[
    Path | None, typer.Option("--store", metavar="DIR", help="The store's folder (or set COLBUILD_STORE).")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        metavar="NAME",
        help="Only this model, package or step and the steps that it needs; NAME+ adds the steps that depend on it, +NAME "
        "also evaluates and exports the models that it is made from. Repeatable.",
    ),
]


def open_console(*, stderr: bool = False) -> Console:
    """A console that takes every text as it is, but for control characters; see `colbuild.report.screen.screen`."""
    from colbuild.report.screen import screen

    return screen.open_console(stderr=stderr)


def print_error(message: str, hint: str | None = None) -> None:
    """Says what is wrong, and what to do."""
    from rich.text import Text

    console = open_console(stderr=True)
    text = Text.assemble(("error", "bold red"), (": ", "bold"), shown(message))
    if hint:
        text.append("\n")
        text.append_text(Text.assemble(("hint", "bold cyan"), (": ", "bold"), shown(hint)))
    console.print(text, soft_wrap=True, highlight=False)


def print_warning(message: str) -> None:
    """Prints a warning; the command continues."""
    from rich.text import Text

    text = Text.assemble(("warning", "bold yellow"), (": ", "bold"), shown(message))
    open_console(stderr=True).print(text, soft_wrap=True, highlight=False)


def warn_of_threads(threads: Iterable[int | None]) -> None:
    """Says when more threads are asked for than this machine has cores."""
    there = colbuild.machine().cores
    for asked in threads:
        if asked is not None and asked > there:
            print_warning(
                f"{asked} threads: this machine has {there} core{'s' if there > 1 else ''}, and more threads are slower"
            )


def event_listener(console: Console, *, as_json: bool) -> AbstractContextManager[Listener]:
    """How events are shown: bars on a terminal, plain lines elsewhere, JSON lines for machines."""
    from contextlib import nullcontext

    from colbuild.report.screen import live

    return nullcontext(live.json_listener(sys.stdout)) if as_json else live.event_listener(console)


def quiet_listener() -> AbstractContextManager[Listener]:
    """How events are shown by commands whose output is something else: on standard error."""
    return event_listener(open_console(stderr=True), as_json=False)


def planned(
    spec: Path, store: Path | None, targets: Sequence[str] = (), mode: LockMode | None = None
) -> tuple[FamilyPlan, Workspace]:
    """A family's plan, and where it is built."""
    loaded = colbuild.load_family(spec)
    workspace = colbuild.open_workspace(loaded, store)
    with quiet_listener() as listener:
        return colbuild.make_plan(loaded, workspace, listener, targets, mode or colbuild.LockMode.REFRESH), workspace


def name_and_spec(words: list[str]) -> tuple[str, Path | None]:
    """A name and the family's file behind it, if one is named.

    A step's id has a space in it, and need not be quoted: `why distill a100 specs/family.yaml`.

    Raises:
        typer.BadParameter: The family's file alone is named.
    """
    *name, last = words
    if Path(last).suffix in (".yaml", ".yml"):
        if not name:
            raise typer.BadParameter(f"name a step, model or package in front of {last}")
        return " ".join(name), Path(last)
    return " ".join(words), None


@contextmanager
def showing_progress(name: str, *, quiet: bool) -> Iterator[Report]:
    """Shows how far a long command is, as a build shows its steps."""
    from colbuild.events import StepProgress
    from colbuild.progress import Progress, silent

    if quiet:
        yield silent
        return
    with quiet_listener() as listener:

        def report(progress: Progress) -> None:
            listener(StepProgress(name, progress))

        yield report
