"""Operations that do what their parameters say, for tests of the executor; they run in real processes of their own."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from colbuild.errors import BuildError, StoppedError
from colbuild.ops.step_run import StepRun
from colbuild.plan.operation import Operation
from colbuild.progress import Progress
from colbuild.run.process import nursery

SERVE = "tests.run.fakes:serve"
"""The function of a nursery that knows these operations, and imports nothing else."""


def serve(descriptor: str) -> None:
    """See `SERVE`."""
    Operation.carry_out = lambda _, step, values: act(step, values)
    nursery.import_before_fork = lambda: None
    nursery.serve(descriptor)


def act(run: StepRun, params: Mapping[str, Any]) -> None:
    """Works off `do`, a list of [verb, argument], and writes what it read and did."""
    for verb, argument in params.get("do", []):
        VERBS[verb](run, argument)
    read = {role: (folder / "made").read_text() for role, folder in sorted(run.inputs.items())}
    (run.output / "made").write_text(f"{params.get('text', '')}{read or ''}")


def _meet(run: StepRun, argument: str) -> None:
    """Waits for another step that runs at the same time."""
    mine, theirs = (Path(path) for path in argument.split("|"))
    mine.touch()
    deadline = time.monotonic() + 20
    while not theirs.exists():
        if time.monotonic() > deadline:
            raise BuildError("nobody came")
        time.sleep(0.01)


def _alone(run: StepRun, argument: str) -> None:
    """Fails if another step that says the same runs at the same time."""
    try:
        os.close(os.open(argument, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        raise BuildError("somebody else is here") from None
    time.sleep(0.2)
    Path(argument).unlink()


def _die(run: StepRun, argument: str) -> None:
    os.kill(os.getpid(), signal.Signals[argument])


def _die_once(run: StepRun, argument: str) -> None:
    if not Path(argument).exists():
        Path(argument).touch()
        os.kill(os.getpid(), signal.SIGKILL)


def _refuse(run: StepRun, argument: str) -> None:
    raise BuildError(argument, hint="do something else")


def _stumble(run: StepRun, argument: str) -> None:
    sys.stderr.write("just before\n")
    raise ZeroDivisionError(argument)


def _say(run: StepRun, argument: str) -> None:
    print(argument)
    os.write(1, b"from below\n")


def _count(run: StepRun, argument: str) -> None:
    with Path(argument).open("a") as file:
        file.write("x")


def _keep_figures(run: StepRun, argument: str) -> None:
    """Uses all that a run has beside what decides its result."""
    assert run.metrics is not None
    assert run.compiled is not None
    with run.metrics.open("a") as file:
        file.write(f"{argument} {run.settings}\n")
    (run.compiled / "kernel").write_text(argument)
    run.note({"tokens": 3})
    run.note({"loss": 1.5})


def _note_process(run: StepRun, argument: str) -> None:
    Path(argument).write_text(f"{os.getpid()} {os.environ['OMP_NUM_THREADS']}")


def _walk(run: StepRun, argument: int) -> None:
    """Takes steps between which it can be stopped, and goes on where it was."""
    assert run.partial is not None
    run.partial.mkdir(exist_ok=True)
    reached = run.partial / "reached"
    start = int(reached.read_text()) if reached.exists() else 0
    for place in range(start, argument):
        run.report(Progress(place, argument, "tokens", metrics={"from": float(start)}))
        time.sleep(0.02)
        if run.stopping():
            reached.write_text(str(place + 1))
            raise StoppedError(f"stopped at {place + 1} of {argument}")


VERBS: dict[str, Callable[[StepRun, str], None]] = {
    "meet": _meet,
    "alone": _alone,
    "die": _die,
    "die_once": _die_once,
    "refuse": _refuse,
    "stumble": _stumble,
    "say": _say,
    "count": _count,
    "keep_figures": _keep_figures,
    "note_process": _note_process,
    "walk": lambda run, argument: _walk(run, int(argument)),
    "sleep": lambda run, argument: time.sleep(float(argument)),
}
