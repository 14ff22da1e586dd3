"""Standard output that is full, closed, or a pipe that nobody reads: every command ends without a traceback."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from colbuild.cli import start
from colbuild.errors import EXIT_FAILED, EXIT_WORK_PENDING
from tests.export.helpers import export
from tests.helpers.tiny import make_tiny_model

SPEC = "specs/tiny.yaml"


def _full() -> int:
    return os.open("/dev/full", os.O_WRONLY)


def _unread() -> int:
    read, write = os.pipe()
    os.close(read)
    return write


def _read() -> int:
    return os.open(os.devnull, os.O_WRONLY)


OUTPUTS = {"full": _full, "closed": _read, "unread": _unread}
TOLD = {"full": "no space left on device", "closed": "it is closed", "unread": ""}

PRINTING = (
    ("--version",), ("--help",), ("plan", "--help"), ("plan", SPEC), ("plan", SPEC, "--json"), ("lock", SPEC), ("status", SPEC),
    ("status", SPEC, "--json"), ("show", SPEC), ("show", SPEC, "--resolved"), ("why", "order", "ansnet", SPEC), ("graph", SPEC),
    ("graph", SPEC, "--format", "svg"), ("schema",), ("cache", "ls"), ("cache", "gc"), ("cache", "verify"),
)  # fmt: skip
"""Commands whose product is their output, or whose output tells of it."""

ON_PACKAGES = (
    ("verify",), ("run", "--raw", "--prompt", "the", "--max-tokens", "2"), ("pack",),
    ("bench", "--threads", "1", "--prompt-tokens", "4", "--new-tokens", "2"),
)  # fmt: skip


def end_of(arguments: tuple[str, ...], folder: Path, output: str, *, stderr: str = "file") -> tuple[int, str]:
    """Runs `colbuild` in a forked process, its standard output of some kind; returns its exit code and its messages."""
    told = folder / "told"
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            os.chdir(folder)
            os.dup2(os.open(told, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            if output == "closed":
                os.close(1)
            else:
                os.dup2(OUTPUTS.get(output, _read)(), 1)
            if stderr == "closed":
                os.close(2)
            sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
            sys.argv = ["colbuild", *arguments]
            start.main()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 98
        except BaseException as error:  # noqa: BLE001 - what is no exit is what the test looks for
            told.write_text(f"Traceback {error!r}")
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), told.read_text()


@pytest.mark.parametrize("output", OUTPUTS)
def test_lost_output_is_told_and_is_no_success(project, output, colbuild):
    # What is imported here need not be imported in each process.
    assert colbuild("status", SPEC).code == 0
    for arguments in PRINTING:
        code, told = end_of(arguments, project, output)
        assert code == EXIT_FAILED, (arguments, told)
        assert "Traceback" not in told, (arguments, told)
        assert TOLD[output] in told, (arguments, told)
        assert told.count("standard output cannot be written") == (output != "unread"), (arguments, told)


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("streams")
    return export(make_tiny_model(folder / "model"), folder / "phone", precision="int8")


@pytest.mark.parametrize("command", ON_PACKAGES, ids=lambda one: one[0])
def test_lost_output_of_a_command_on_a_package(package, tmp_path, command):
    for output in OUTPUTS:
        code, told = end_of((command[0], str(package), *command[1:]), tmp_path, output)
        assert (code, "Traceback" in told) == (EXIT_FAILED, False), told
        assert TOLD[output] in told


def test_closed_messages_change_no_exit_code(project):
    assert end_of(("plan", SPEC, "--exit-code"), project, "read", stderr="closed")[0] == EXIT_WORK_PENDING
    assert end_of(("plan", "specs/none.yaml"), project, "closed", stderr="closed")[0] == 3


@pytest.mark.parametrize("arguments", [(), ("--json",)], ids=["lines", "json"])
def test_a_build_goes_on_without_its_output(finished_project, tmp_path, arguments):
    """A finished family's, whose packages have to be put in their places again."""
    folder = shutil.copytree(finished_project[0], tmp_path / "project", symlinks=True)
    for output in OUTPUTS:
        shutil.rmtree(folder / "out")
        code, told = end_of(("build", SPEC, *arguments), folder, output)
        assert (code, "Traceback" in told) == (0, False), told
        assert list((folder / "out").glob("*/*/*/manifest.json"))
        assert told.startswith(f"warning: standard output cannot be written: {TOLD[output]}") == (output != "unread")
