"""`colbuild plan`: the steps of a build; for several families, or compared with a git revision."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import colbuild
from colbuild.cli.common import DEFAULT_SPECS, AsJson, Specs, StorePath, Targets, open_console, planned, quiet_listener
from colbuild.cli.lock_command import Frozen, Locked, lock_mode
from colbuild.errors import EXIT_WORK_PENDING
from colbuild.report.screen.printed import write_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from colbuild import LockMode


def plan(
    specs: Specs = DEFAULT_SPECS,
    target: Targets = None,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with 2 if work is pending, for scripts.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Save the plan, for 'colbuild build --plan FILE'."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since", metavar="REV", help="Only the steps that differ from a git revision of the spec, such as main."
        ),
    ] = None,
    locked: Locked = False,
    frozen: Frozen = False,
    store: StorePath = None,
    as_json: AsJson = False,
) -> None:
    """Show the steps that a build would run, and why; for several families, also the steps that they share."""
    mode = lock_mode(locked, frozen)
    if since is None and len(specs) == 1:
        pending = _show_one(specs[0], target or (), output, store, mode, as_json=as_json)
    elif output is not None:
        raise typer.BadParameter("--output saves the whole plan of one family: leave it out")
    elif since is None:
        if target:
            raise typer.BadParameter("--target works with one family, and several are given")
        pending = _show_many(specs, store, mode, as_json=as_json)
    elif len(specs) > 1:
        raise typer.BadParameter("--since compares one family at a time")
    else:
        pending = _show_since(specs[0], since, target or (), store, mode, as_json=as_json)
    if exit_code and pending:
        raise typer.Exit(EXIT_WORK_PENDING)


def _show_one(
    spec: Path, targets: Sequence[str], output: Path | None, store: Path | None, mode: LockMode, *, as_json: bool
) -> bool:
    """Shows a family's plan, and saves it if that is asked for; returns whether there is anything to do."""
    from colbuild.report.screen.plan_view import print_plan, print_saved

    found, workspace = planned(spec, store, targets, mode)
    colbuild.check_possible(found)
    estimates = colbuild.estimate_plan(found, workspace)
    if as_json or output is not None:
        saved = colbuild.save_plan(found, workspace, estimates)
        if output is not None:
            colbuild.write_plan(saved, output)
        if as_json:
            write_json(saved.model_dump(mode="json"))
    if not as_json:
        console = open_console()
        print_plan(found, estimates, console)
        if found.selection:
            from colbuild.report.screen.explain_view import print_left

            print_left(found, found.selection.left, console)
        if output is not None:
            print_saved(output, console)
    return bool(found.pending)


def _show_since(
    spec: Path, revision: str, targets: Sequence[str], store: Path | None, mode: LockMode, *, as_json: bool
) -> bool:
    """Shows what a family builds that it did not build at a revision; returns whether any of it is to be done."""
    from colbuild.report.screen.compare_view import print_since, since_to_json

    found, workspace = planned(spec, store, targets, mode)
    colbuild.check_possible(found)
    with quiet_listener() as listener:
        since = colbuild.plan_since(found, workspace, revision, listener)
    if as_json:
        write_json(since_to_json(found, since))
    else:
        print_since(found, since, open_console())
    return bool(since.pending)


def _show_many(specs: Sequence[Path], store: Path | None, mode: LockMode, *, as_json: bool) -> bool:
    """Shows the plans of several families in turn and their sum; returns whether there is anything to do."""
    from colbuild.report.screen.compare_view import plans_to_json, print_sum
    from colbuild.report.screen.plan_view import print_plan

    families = colbuild.load_families(specs)
    workspaces = [colbuild.open_workspace(loaded, store) for loaded in families]
    with quiet_listener() as listener:
        plans = [
            colbuild.make_plan(loaded, workspace, listener, (), mode)
            for loaded, workspace in zip(families, workspaces, strict=True)
        ]
    colbuild.check_possible(*plans)
    together = colbuild.plans_together(plans, workspaces)
    pairs = list(zip(plans, workspaces, strict=True))
    if as_json:
        write_json(plans_to_json([colbuild.save_plan(*pair).model_dump(mode="json") for pair in pairs], together))
        return together.pending > 0
    console = open_console()
    for pair in pairs:
        print_plan(pair[0], colbuild.estimate_plan(*pair), console)
        console.print()
    print_sum(together, console)
    return together.pending > 0
