"""`colbuild cache`: lists, checks, cleans and shares the store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import colbuild
from colbuild.cli.common import AsJson, Spec, StorePath, name_and_spec, open_console, planned, showing_progress
from colbuild.errors import EXIT_FAILED
from colbuild.report.screen.naming import DEFAULT_SPEC
from colbuild.report.screen.printed import write_json
from colbuild.units import UnitError, parse_duration

if TYPE_CHECKING:
    from colbuild import Store

cache = typer.Typer(
    name="cache",
    help="List, check and clean the store; share its results.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Remote = Annotated[
    str | None,
    typer.Option(
        "--remote", metavar="URL", help="The remote cache, such as s3://bucket/path (or set COLBUILD_REMOTE)."
    ),
]
Words = Annotated[
    list[str],
    typer.Argument(
        metavar="NAME [SPEC]",
        help="A model, a package or a step, as 'colbuild plan' names it; or the first 8 or more digits of a digest. "
        "A .yaml file after it is the family's.",
    ),
]


@cache.command("ls")
def ls(store: StorePath = None, as_json: AsJson = False) -> None:
    """List the results and sources in the store: size, origin, and the reason they are kept."""
    from colbuild.report.screen.cache_view import listing_to_json, print_listing

    listing = colbuild.list_store(colbuild.find_store(store))
    if as_json:
        write_json(listing_to_json(listing))
    else:
        print_listing(listing, open_console())


@cache.command("gc")
def gc(
    delete: Annotated[
        bool, typer.Option("--delete", help="Remove unused results; without this option they are only listed.")
    ] = False,
    lease: Annotated[str, typer.Option(metavar="TIME", help="Results made or used within this time are kept.")] = "24h",
    history: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="Records and logs of builds, and checkpoints of interrupted steps, are kept for this time.",
        ),
    ] = "14d",
    forget: Annotated[
        bool,
        typer.Option("--forget", help="Remove the results of projects that cannot be found."),
    ] = False,
    store: StorePath = None,
    as_json: AsJson = False,
) -> None:
    """List results that no lock, pin or lease keeps; with --delete, remove them."""
    from colbuild.report.screen.cache_view import collected_to_json, print_collected

    policy = colbuild.Policy(lease=_seconds(lease, "--lease"), history=_seconds(history, "--history"))
    if forget:
        policy = replace(policy, lost=float("-inf"))
    found = colbuild.find_store(store)
    listing = colbuild.list_store(found)
    collected = colbuild.collect(found, policy, delete=delete)
    if as_json:
        write_json(collected_to_json(found, collected))
    else:
        print_collected(listing, collected, open_console())


@cache.command("verify")
def verify(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[DIGEST]...", help="Only these results, by the first 8 or more digits of their digests."
        ),
    ] = None,
    store: StorePath = None,
    as_json: AsJson = False,
) -> None:
    """Read every byte in the store and quarantine damaged results; exit with 1 if there are any."""
    from colbuild.report.screen.cache_view import checked_to_json, print_checked

    found = colbuild.find_store(store)
    with showing_progress("verify", quiet=as_json) as report:
        checked = colbuild.verify_store(found, names or (), report)
    if as_json:
        write_json(checked_to_json(found, checked))
    else:
        print_checked(found, checked, open_console())
    if checked.damaged:
        raise typer.Exit(EXIT_FAILED)


@cache.command("pin")
def pin(words: Words, store: StorePath = None) -> None:
    """Pin a result, so that 'cache gc' keeps it: a model, a package, or the result of any step."""
    from colbuild.report.screen.cache_view import print_pinned

    name, spec = name_and_spec(words)
    if spec is None and colbuild.is_prefix(name):
        pinned, fresh = colbuild.pin_digest(colbuild.find_store(store), name)
    else:
        plan, workspace = planned(spec or DEFAULT_SPEC, store)
        pinned, fresh = colbuild.pin_result(plan, workspace, name)
    print_pinned(pinned, fresh, open_console())


@cache.command("unpin")
def unpin(words: Words, store: StorePath = None) -> None:
    """Unpin a result, by its name in 'colbuild cache ls' or the first digits of its digest."""
    from colbuild.report.screen.cache_view import print_unpinned

    name, spec = name_and_spec(words)
    print_unpinned(colbuild.unpin(_store_of(spec, store), name), open_console())


@cache.command("push")
def push(spec: Spec = DEFAULT_SPEC, remote: Remote = None, store: StorePath = None) -> None:
    """Upload the family's results that a remote cache does not have yet."""
    from colbuild.report.screen.cache_view import print_pushed

    url = colbuild.required_remote(remote)
    plan, workspace = planned(spec, store)
    with showing_progress("push", quiet=False) as report:
        pushed = colbuild.push_family(plan, workspace, url, report)
    print_pushed(pushed, url, open_console())


@cache.command("pull")
def pull(spec: Spec = DEFAULT_SPEC, remote: Remote = None, store: StorePath = None) -> None:
    """Fetch the family's results from a remote cache into the store; 'colbuild build' then puts them into out/."""
    from colbuild.report.screen.cache_view import print_pulled

    url = colbuild.required_remote(remote)
    plan, workspace = planned(spec, store)
    with showing_progress("pull", quiet=False) as report:
        pulled = colbuild.pull_family(plan, workspace, url, report)
    print_pulled(pulled, url, open_console())


def _seconds(text: str, option: str) -> float:
    try:
        return parse_duration(text)
    except UnitError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def _store_of(spec: Path | None, store: Path | None) -> Store:
    """The store of a family's project, if one is named."""
    if spec is None:
        return colbuild.find_store(store)
    return colbuild.open_workspace(colbuild.load_family(spec), store).store
