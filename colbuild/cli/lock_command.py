"""`colbuild lock`, and the options `--locked` and `--frozen` of other commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

import colbuild
from colbuild.cli.common import Spec, StorePath, open_console, quiet_listener
from colbuild.report.screen.naming import DEFAULT_SPEC

if TYPE_CHECKING:
    from colbuild import LockMode

Locked = Annotated[bool, typer.Option("--locked", help="Fail if the lock is missing or out of date.")]
Frozen = Annotated[
    bool, typer.Option("--frozen", help="Use the lock's shapes, route and digests, even if it is out of date.")
]


def lock_mode(locked: bool, frozen: bool) -> LockMode:
    """What the options ask for.

    Raises:
        typer.BadParameter: Both are given.
    """
    if locked and frozen:
        raise typer.BadParameter("--locked and --frozen exclude each other")
    modes = colbuild.LockMode
    return modes.FROZEN if frozen else modes.LOCKED if locked else modes.REFRESH


def lock(spec: Spec = DEFAULT_SPEC, store: StorePath = None) -> None:
    """Write the family's lock: the digest of every source, every solved shape, and the route."""
    loaded = colbuild.load_family(spec)
    with quiet_listener() as listener:
        done = colbuild.lock_family(loaded, colbuild.open_workspace(loaded, store), listener)
    console = open_console()
    before = done.before
    if not done.written:
        console.print(f"{before.name} is up to date.")
        return
    held = f"{len(done.lock.sources)} sources, {len(done.lock.shapes)} shapes, a route of {len(done.lock.route)}"
    console.print(f"Wrote {before.name}: {held}.", soft_wrap=True)
    told = [before.problem.message] if before.problem else before.differences
    for difference in told:
        console.print(f"  {difference}", soft_wrap=True)
