"""The commands. Expensive imports happen inside the command that needs them: start-up time is a feature."""

from __future__ import annotations

import sys
from enum import StrEnum
from io import StringIO
from pathlib import Path
from typing import Annotated

import typer

import colbuild
from colbuild.cli import build_options, explain_commands, lock_command, package_commands, plan_command
from colbuild.cli.cache_commands import cache
from colbuild.cli.common import (
    AsJson,
    Spec,
    StorePath,
    Targets,
    event_listener,
    open_console,
    planned,
    print_error,
)
from colbuild.errors import EXIT_DONE, EXIT_FAILED, ColbuildError, system_reason
from colbuild.report.screen.naming import DEFAULT_SPEC, named_spec, naming
from colbuild.report.screen.printed import shown, write_json, write_text
from colbuild.report.screen.streams import OutputLostError, output_is_optional

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


app.command()(plan_command.plan)


@app.command()
def build(
    spec: Spec = DEFAULT_SPEC,
    target: Targets = None,
    saved_as: Annotated[
        Path | None,
        typer.Option("--plan", metavar="FILE", help="Build this saved plan, or refuse if anything changed."),
    ] = None,
    jobs: build_options.Jobs = None,
    keep_going: build_options.KeepGoing = False,
    retries: build_options.Retries = 0,
    cores: build_options.Cores = None,
    memory: build_options.Memory = None,
    gpus: build_options.Gpus = None,
    remote: build_options.Remote = None,
    push: build_options.Push = False,
    locked: lock_command.Locked = False,
    frozen: lock_command.Frozen = False,
    store: StorePath = None,
    as_json: AsJson = False,
) -> None:
    """Build the family: run the steps that are not in the store."""
    from colbuild.report.screen.states_view import lock_line
    from colbuild.report.screen.table_view import print_built

    output_is_optional()
    options = build_options.options_of(jobs, keep_going, retries, cores, memory, gpus, remote, push)
    saved = None if saved_as is None else colbuild.read_plan(saved_as)
    if saved is not None:
        if target:
            raise typer.BadParameter("a saved plan has its own targets: leave out --target or --plan")
        target = list(saved.targets)
        # The default stands for no family named: then it is the plan's.
        spec = Path(saved.spec.path) if spec == DEFAULT_SPEC else spec
    loaded = colbuild.load_family(spec)
    workspace = colbuild.open_workspace(loaded, store)
    console = open_console()
    with event_listener(console, as_json=as_json) as listener:
        plan = colbuild.make_plan(loaded, workspace, listener, target or (), lock_command.lock_mode(locked, frozen))
        if not as_json:
            console.print(lock_line(plan.lock), soft_wrap=True)
        if saved is not None:
            colbuild.check_plan(saved, plan, workspace)
        built = colbuild.build(plan, workspace, listener, options)
    if not as_json:
        print_built(plan, built, console)
        if plan.selection:
            from colbuild.report.screen.explain_view import print_left

            print_left(plan, built.left, console)


@app.command()
def status(spec: Spec = DEFAULT_SPEC, store: StorePath = None, as_json: AsJson = False) -> None:
    """Show the family's builds and models: sizes, quality, and packages."""
    from colbuild.report.screen.history_view import history_to_json, print_history
    from colbuild.report.screen.states_view import lock_line
    from colbuild.report.screen.table_view import print_status, status_to_json

    found, workspace = planned(spec, store)
    rows = colbuild.family_status(found, workspace)
    instead = colbuild.planned_alternatives(found, workspace)
    records = workspace.store.layout.folder("runs")
    history = colbuild.family_history(records, found.loaded.family.name, found.loaded.path)
    if as_json:
        write_json({**status_to_json(found, rows, instead), "builds": history_to_json(history)})
    else:
        console = open_console()
        console.print(lock_line(found.lock), soft_wrap=True)
        print_history(history, console, spec=found.loaded.path)
        print_status(found, rows, instead, console)


app.command()(explain_commands.why)
app.command()(explain_commands.show)
app.command()(explain_commands.graph)
app.command()(lock_command.lock)
app.add_typer(cache)


@app.command()
def schema(
    kind: Annotated[SchemaKind, typer.Argument(help="The kind of file.")] = SchemaKind.FAMILY,
) -> None:
    """Print the JSON schema of a family, a recipe, a device profile or a saved plan."""
    write_text(colbuild.plan_schema_text() if kind is SchemaKind.PLAN else colbuild.schema_text(kind.value))


app.command()(package_commands.verify)
app.command()(package_commands.pack)
app.command()(package_commands.push)
app.command()(package_commands.run)
app.command()(package_commands.bench)


def _version(value: bool) -> None:
    if value:
        write_text(f"colbuild {colbuild.__version__}\n")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Builds families of language models from one file."""


def run_command(arguments: list[str]) -> int:
    """Runs one command; returns its exit code. Prints a user's mistake instead of a traceback."""
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
        print_error(f"cannot use {error.filename or 'a file'}: {system_reason(error)}", "check who owns it")
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

_GOES_ON = "finished steps are kept; 'colbuild build' continues from there"


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
