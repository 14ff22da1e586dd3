"""Python processes that colbuild starts: where they import from, and when they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from colbuild.process import call, python_command
from tests.helpers.project import ROOT

TRAP = 'import os\nwith open(os.environ["CANARY"], "a") as file:\n    file.write(__name__ + " ran\\n")\n'


def tell(*words: str) -> None:
    """What the tests' processes do: import something, and print."""
    import json

    print(json.dumps([words, signal.getsignal(signal.SIGINT) == signal.SIG_IGN, os.environ["PYTHONSAFEPATH"]]))


def linger(note: str) -> None:
    """A process with a child of its own, that both would stay for long."""
    child = subprocess.Popen(python_command("tests.run.test_process:linger_alone"))
    Path(note).with_suffix(".draft").write_text(f"{os.getpid()} {child.pid}")
    Path(note).with_suffix(".draft").replace(note)
    time.sleep(60)


def linger_alone() -> None:
    time.sleep(60)


def test_a_process_imports_nothing_from_the_working_folder_and_hears_no_control_c(tmp_path):
    for name in ("json", "colbuild", "tests", "importlib", "signal"):
        (tmp_path / f"{name}.py").write_text(TRAP)
    canary = tmp_path / "canary"
    done = subprocess.run(
        python_command("tests.run.test_process:tell", ["a b", ""]),
        cwd=tmp_path,
        env={**os.environ, "CANARY": str(canary)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == '[["a b", ""], true, "1"]\n'
    assert not canary.exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere a thread looks twice a second")
def test_what_a_killed_process_has_started_is_gone_at_once(tmp_path):
    note = tmp_path / "note"
    process = subprocess.Popen(python_command("tests.run.test_process:linger", [str(note)]), cwd=ROOT)
    while not note.exists():
        assert process.poll() is None
        time.sleep(0.01)
    _, child = map(int, note.read_text().split())
    # Give the child the time to ask the system for it.
    time.sleep(0.3)
    process.kill()
    process.wait()
    killed = time.monotonic()
    while Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text().rpartition(")")[2]:
        assert time.monotonic() - killed < 2
        time.sleep(0.01)


def test_a_process_whose_parent_is_gone_already_ends():
    pid = os.fork()
    if pid == 0:
        call("tests.run.test_process:linger_alone", 1 if os.getppid() != 1 else 2, [])
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
