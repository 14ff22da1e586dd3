"""Ctrl-C at any moment of a command: no traceback; and the second one ends it at once, whatever it is at."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from tests.e2e.builds import eventually, processes
from tests.helpers.project import ROOT

SPEC = "specs/tiny.yaml"
_COMMAND = "import sys; from colbuild.cli import main; sys.argv[0] = 'colbuild'; main()"
PROMISED = 1.0
BUSY = 3.0
"""Seconds more that a machine with other things to do may take."""


def start(project, *arguments):
    return subprocess.Popen(
        [sys.executable, "-P", "-c", _COMMAND, *arguments],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_control_c_at_any_moment_prints_no_traceback(project):
    rng = random.Random(4)
    for _ in range(8):
        command = start(project, rng.choice(("plan", "status", "show")), SPEC)
        # Before that Python itself begins; it answers in its own way.
        time.sleep(rng.uniform(0.15, 1.2))
        os.killpg(command.pid, signal.SIGINT)
        out, err = command.communicate(timeout=60)
        assert "Traceback" not in out + err, err
        # A command that has done everything ends without a word, since there is nothing left to interrupt.
        ended_after_all = (command.returncode, err) in ((0, ""), (-signal.SIGINT, ""))
        assert ended_after_all or err.startswith("error: interrupted\n"), (command.returncode, out, err)


_SWALLOWED = """
import os, signal, sys
# What runs in the background of a shell ignores it.
signal.signal(signal.SIGINT, signal.default_int_handler)
import colbuild.cli.app
from colbuild.cli import main

def run_command(arguments):
    try:
        if arguments == ["interrupted"]:
            os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        pass
    raise ValueError("of a library")

colbuild.cli.app.run_command = run_command
main()
"""


@pytest.mark.parametrize(("argument", "said"), [("interrupted", "error: interrupted\n"), ("going", "Traceback")])
def test_an_interrupt_that_a_library_makes_an_error_of_its_own_is_an_interrupt(argument, said):
    ended = subprocess.run([sys.executable, "-c", _SWALLOWED, argument], capture_output=True, text=True, cwd=ROOT)
    assert (ended.returncode, ended.stderr.startswith(said)) == (1, True), ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("after", [0.3, 2.0])
def test_the_second_control_c_ends_a_build_while_its_libraries_are_imported(project, after):
    build = start(project, "build", SPEC)
    assert build.stdout is not None
    for line in build.stdout:
        if "steps to run" in line:
            break
    time.sleep(after)
    os.killpg(build.pid, signal.SIGINT)
    time.sleep(0.3)
    os.killpg(build.pid, signal.SIGINT)
    began = time.monotonic()
    _, err = build.communicate(timeout=60)
    assert time.monotonic() - began < PROMISED + BUSY
    assert eventually(lambda: not processes(build.pid), BUSY) is not None
    assert build.returncode == 1, err
    assert err.startswith("error: interrupted"), err
    assert "Traceback" not in err


@pytest.mark.slow
def test_the_end_of_the_terminal_stops_a_build_in_good_order(project):
    build = start(project, "build", SPEC)
    assert build.stdout is not None
    for line in build.stdout:
        if "steps to run" in line:
            break
    time.sleep(0.5)
    build.stdout.close()
    os.killpg(build.pid, signal.SIGHUP)
    assert build.stderr is not None
    err = build.stderr.read()
    assert build.wait(60) == 1
    assert "steps are in the store" in err
    assert "Traceback" not in err
