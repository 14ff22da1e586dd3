"""The options of `colbuild build` that do not change a result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

import colbuild
from colbuild.cli.common import print_warning
from colbuild.units import UnitError, format_bytes, parse_bytes

if TYPE_CHECKING:
    from colbuild import Options

LEAST_MEMORY: Final = 500_000_000
"""No step needs less: a process that has loaded the libraries holds as much."""
_A_NUMBER: Final = 10_000
"""Fewer bytes than these are a number of gigabytes whose unit was forgotten."""

Jobs = Annotated[
    int | None,
    typer.Option("--jobs", "-j", min=1, help="The largest number of steps side by side; as many as fit by default."),
]
KeepGoing = Annotated[
    bool, typer.Option("--keep-going", "-k", help="If a step fails, continue with the steps that do not need it.")
]
Retries = Annotated[
    int,
    typer.Option(min=0, help="Retries of a step that crashed, ran out of memory, or whose source was unavailable."),
]
Cores = Annotated[int | None, typer.Option(min=1, help="Cores that the build may use; all by default.")]
Memory = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="Memory for steps that run side by side, such as 8GB; all by default."),
]
Gpus = Annotated[int | None, typer.Option(min=0, help="GPUs that the build may use; all by default.")]
Remote = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="A remote cache to read results from, such as s3://bucket/path (or set COLBUILD_REMOTE)."
    ),
]
Push = Annotated[bool, typer.Option("--push", help="Upload new results to the remote cache.")]


def options_of(
    jobs: int | None,
    keep_going: bool,
    retries: int,
    cores: int | None,
    memory: str | None,
    gpus: int | None,
    remote: str | None,
    push: bool,
) -> Options:
    """The options as one value.

    Raises:
        BadParameter: The memory is no size, more GPUs are asked for than there are, or there is no remote to push to.
    """
    there = colbuild.machine()
    if gpus is not None and gpus > len(there.gpus):
        raise typer.BadParameter(f"there are {len(there.gpus)} GPUs here", param_hint="--gpus")
    url = colbuild.remote_url(remote)
    if push and url is None:
        raise typer.BadParameter("there is no remote: name one with --remote or COLBUILD_REMOTE", param_hint="--push")
    room = _bytes(memory)
    _warn_of(cores, room, there.cores, there.memory)
    resources = colbuild.Resources(
        cores or there.cores, room or there.memory, there.gpus if gpus is None else there.gpus[:gpus]
    )
    return colbuild.Options(jobs, keep_going, retries, resources, url, push)


def _warn_of(cores: int | None, memory: int | None, real_cores: int, real_memory: int) -> None:
    """Says what is hardly meant: `--memory 8` are eight bytes, and a machine has no more cores than it has."""
    if cores is not None and cores > real_cores:
        print_warning(f"--cores {cores}: this machine has {real_cores}")
    if memory is not None and memory < LEAST_MEMORY:
        meant = f"; did you mean {memory}GB?" if memory < _A_NUMBER else ""
        print_warning(f"--memory is {format_bytes(memory)}, less than any step needs: steps run one at a time{meant}")
    if memory is not None and memory > real_memory:
        print_warning(f"--memory is {format_bytes(memory)}: this machine has {format_bytes(real_memory)}")


def _bytes(text: str | None) -> int | None:
    try:
        return None if text is None else parse_bytes(text)
    except UnitError as error:
        raise typer.BadParameter(str(error), param_hint="--memory") from error
