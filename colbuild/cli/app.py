"""The commands. What is dear to import is imported inside the command that needs it: start-up time is a feature."""

from __future__ import annotations

import sys
from enum import StrEnum
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from colbuild import __version__
from colbuild.cli import build_options, explain, lock, packages
from colbuild.cli.cache import cache
from colbuild.cli.common import (
    DEFAULT_SPECS,
    AsJson,
    Spec,
    Specs,
    StorePath,
    Targets,
    event_listener,
    open_console,
    print_error,
)
from colbuild.errors import EXIT_DONE, EXIT_FAILED, EXIT_WORK_PENDING, ColbuildError
from colbuild.report.screen.naming import DEFAULT_SPEC, named_spec, naming
from colbuild.report.screen.printed import shown, write_json, write_text
from colbuild.report.screen.streams import OutputLostError, output_is_optional

if TYPE_CHECKING:
    from colbuild.plan.lock.lock import LockMode

app = typer.Typer(
    name="colbuild",
    help="Builds families of language models from one file.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class SchemaKind(StrEnum):
    """The files that have a schema."""

    FAMILY = "family"
    RECIPE = "recipe"
    PROFILE = "profile"
    PLAN = "plan"


@app.command()
def plan(
    specs: Specs = DEFAULT_SPECS,
    target: Targets = None,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with 2 if there is anything to do, as scripts may ask.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Save the plan, for 'colbuild build --plan FILE'."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since", metavar="REV", help="Only what differs from a git revision's spec, such as main, and why."
        ),
    ] = None,
    locked: lock.Locked = False,
    frozen: lock.Frozen = False,
    store: StorePath = None,
    as_json: AsJson = False,
) -> None:
    """Show what a build would do, and why; of several families, also what they share."""
    from colbuild import interface as api
    from colbuild.report.screen.explain_view import print_left
    from colbuild.report.screen.plan_view import print_plan, print_saved

    mode = lock.lock_mode(locked, frozen)
    if since is not None or len(specs) > 1:
        pending = _compared(specs, since, target, output, store, mode, as_json=as_json)
        if exit_code and pending:
            raise typer.Exit(EXIT_WORK_PENDING)
        return
    loaded = api.load_family(specs[0])
    console = open_console()
    with event_listener(open_console(stderr=True), as_json=False) as listener:
        workspace = api.open_workspace(loaded, store)
        planned = api.make_plan(loaded, workspace, listener, target or (), mode)
    api.check_possible(planned)
    estimates = api.estimate_plan(planned, workspace)
    if as_json or output is not None:
        saved = api.save_plan(planned, workspace, estimates)
        if output is not None:
            api.write_plan(saved, output)
        if as_json:
            write_json(saved.model_dump(mode="json"))
    if not as_json:
        print_plan(planned, estimates, console)
        print_left(planned, planned.selection.left if planned.selection else (), console)
        if output is not None:
            print_saved(output, console)
    if exit_code and planned.pending:
        raise typer.Exit(EXIT_WORK_PENDING)


def _compared(
    specs: list[Path],
    since: str | None,
    target: list[str] | None,
    output: Path | None,
    store: Path | None,
    mode: LockMode,
    *,
    as_json: bool,
) -> bool:
    """Shows a plan beside something else: a revision, or other families. Returns whether there is anything to do."""
    from colbuild.cli.compare import show_many, show_since

    if output is not None:
        raise typer.BadParameter("a saved plan is the whole plan of one family: leave out --output")
    if since is None:
        if target:
            raise typer.BadParameter("--target is part of one family, and several are given")
        return show_many(specs, store, mode, as_json=as_json)
    if len(specs) > 1:
        raise typer.BadParameter("--since compares one family at a time")
    return show_since(specs[0], since, target or (), store, mode, as_json=as_json)


@app.command()
def build(
    spec: Spec = DEFAULT_SPEC,
    target: Targets = None,
    saved_as: Annotated[
        Path | None,
        typer.Option("--plan", metavar="FILE", help="Build what this saved plan says, or refuse if anything changed."),
    ] = None,
    jobs: build_options.Jobs = None,
    keep_going: build_options.KeepGoing = False,
    retries: build_options.Retries = 0,
    cores: build_options.Cores = None,
    memory: build_options.Memory = None,
    gpus: build_options.Gpus = None,
    remote: build_options.Remote = None,
    push: build_options.Push = False,
    locked: lock.Locked = False,
    frozen: lock.Frozen = False,
    store: StorePath = None,
    as_json: AsJson = False,
) -> None:
    """Build the family: what is not in the store yet, and nothing else."""
    from colbuild import interface as api
    from colbuild.report.screen.explain_view import print_left
    from colbuild.report.screen.states_view import lock_line
    from colbuild.report.screen.table_view import print_built

    output_is_optional()
    options = build_options.options_of(jobs, keep_going, retries, cores, memory, gpus, remote, push)
    saved = None if saved_as is None else api.read_plan(saved_as)
    if saved is not None:
        if target:
            raise typer.BadParameter("a saved plan has its own targets: leave out --target or --plan")
        target = list(saved.targets)
        # The default stands for no family named: then it is the plan's.
        spec = Path(saved.spec.path) if spec == DEFAULT_SPEC else spec
    loaded = api.load_family(spec)
    workspace = api.open_workspace(loaded, store)
    console = open_console()
    with event_listener(console, as_json=as_json) as listener:
        planned = api.make_plan(loaded, workspace, listener, target or (), lock.lock_mode(locked, frozen))
        if not as_json:
            console.print(lock_line(planned.lock), soft_wrap=True)
        if saved is not None:
            api.check_plan(saved, planned, workspace)
        built = api.build(planned, workspace, listener, options)
    if not as_json:
        print_built(planned, built, console)
        print_left(planned, built.left, console)


@app.command()
def status(spec: Spec = DEFAULT_SPEC, store: StorePath = None, as_json: AsJson = False) -> None:
    """Show how builds of the family stand, and its models: which are built, how good they are, where their packages lie."""
    from colbuild import interface as api
    from colbuild.report.screen.history_view import history_to_json, print_history
    from colbuild.report.screen.states_view import lock_line
    from colbuild.report.screen.table_view import print_status, status_to_json

    loaded = api.load_family(spec)
    workspace = api.open_workspace(loaded, store)
    with event_listener(open_console(stderr=True), as_json=False) as listener:
        planned = api.make_plan(loaded, workspace, listener)
    rows = api.family_status(planned, workspace)
    history = api.family_history(loaded, workspace)
    if as_json:
        write_json({**status_to_json(planned, rows), "builds": history_to_json(history)})
    else:
        console = open_console()
        console.print(lock_line(planned.lock), soft_wrap=True)
        print_history(history, console, spec=loaded.path)
        print_status(planned, rows, console)


app.command()(explain.why)
app.command()(explain.show)
app.command()(explain.graph)
app.command()(lock.lock)
app.add_typer(cache)


@app.command()
def schema(
    kind: Annotated[SchemaKind, typer.Argument(help="Which file's schema.")] = SchemaKind.FAMILY,
) -> None:
    """Print the JSON schema of a family, a recipe, a device profile or a saved plan."""
    from colbuild.interface import plan_schema_text, schema_text

    write_text(plan_schema_text() if kind is SchemaKind.PLAN else schema_text(kind.value))


for about_packages in (packages.verify, packages.pack, packages.push, packages.run, packages.bench):
    app.command()(about_packages)


def _version(value: bool) -> None:
    if value:
        write_text(f"colbuild {__version__}\n")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Builds families of language models from one file."""


def run_command(arguments: list[str]) -> int:
    """Runs one command; returns its exit code. A user's mistake is told, never thrown."""
    command = typer.main.get_command(app)
    spec = named_spec(arguments)
    try:
        result = command.main(args=arguments, prog_name="colbuild", standalone_mode=False)
    except OutputLostError:
        # Told at the end of the command: nothing more can be said there.
        return EXIT_FAILED
    except ColbuildError as error:
        print_error(naming(error.message, spec), error.hint and naming(error.hint, spec))
        return error.exit_code
    except PermissionError as error:
        # Another user's folder: nobody asks of each file that is looked for whether it may be.
        print_error(
            f"cannot use {error.filename or 'a file'}: {(error.strerror or str(error)).lower()}", "check who owns it"
        )
        return EXIT_FAILED
    except KeyboardInterrupt:
        result = _INTERRUPTED
    except Exception as error:  # noqa: BLE001  (what is not a mistake in the arguments is raised again)
        return _usage_error(error, spec)
    if result == _INTERRUPTED:
        print_error("interrupted", naming(_GOES_ON, spec))
        return EXIT_FAILED
    return result if isinstance(result, int) else EXIT_DONE


_INTERRUPTED = 130
"""What typer makes of an interrupt; no command of ours ends with it."""

_GOES_ON = "what was finished is kept; 'colbuild build' goes on from there"


def _usage_error(error: Exception, spec: Path | None) -> int:
    """What typer itself raises for wrong arguments; anything else is thrown on, for it is a mistake of ours.

    Its own exit code for this, 2, means "work pending" here.
    """
    show = getattr(error, "show", None)
    if callable(show):
        told = StringIO()
        show(told)
        sys.stderr.write(shown(told.getvalue()))
        return EXIT_FAILED
    if type(error).__name__ == "Abort":
        print_error("interrupted", naming(_GOES_ON, spec))
        return EXIT_FAILED
    raise error
