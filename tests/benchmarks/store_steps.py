"""What a step costs beyond its process: the same work carried out by the executor, and by bare processes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final
from unittest import mock

from colbuild.ops.step import StepRun
from colbuild.plan.graph import BuildGraph
from colbuild.plan.step import Step
from colbuild.progress import silent
from colbuild.run import executor, nursery
from colbuild.run.executor import Options, execute
from colbuild.run.job import Done, Job
from colbuild.run.nursery import Nursery, open_nursery
from colbuild.run.resources import Resources
from colbuild.run.sources import Sources
from colbuild.store import ActionRecord, open_store
from tests.helpers.nurseries import SharedNursery

_BATCH: Final = 20

_CHILD: Final = (
    "import os, sys; sys.path[:] = sys.argv[2:]\n"
    "from colbuild.run import nursery, perform, worker\n"
    "from tests.benchmarks import store_steps\n"
    "perform.operation = lambda op: store_steps.act\n"
    "{change}\n"
    "nursery.serve(int(sys.argv[1]))"
)
"""The program of a nursery that has imported what it always does, torch among it, and whose steps write some bytes."""

_CHANGES: Final = {
    "bare process": "worker.work = store_steps.bare",
    "step": "",
    "step, without fsync": "os.fsync = lambda descriptor: None",
}


def act(run: StepRun) -> None:
    """The work of every step and every bare process."""
    (run.output / "made").write_text(run.params["text"], encoding="utf-8")


def bare(job: Job, connection: nursery.Connection, parent: int) -> None:
    """What a process does that has no executor and no store: the work, and an answer."""
    output = job.log.with_suffix("")
    output.mkdir(parents=True)
    act(StepRun({}, job.step.params, output, silent))
    record = ActionRecord("", job.step.id, job.step.op, job.step.params, {}, "", 0, 0.0, 0.0)
    connection.send(Done(record, fresh=True))
    connection.close()


def seconds_per_step(root: Path, batches: int) -> dict[str, float]:
    """Seconds for each step or bare process, one at a time: the median of batches that take turns."""
    taken: dict[str, list[float]] = {name: [] for name in _CHANGES}
    with ExitStack() as stack:
        nurseries = {name: stack.enter_context(_nursery(change)) for name, change in _CHANGES.items()}
        # The first one of each waits for the imports.
        for batch in range(-1, batches):
            for name in _CHANGES:
                folder = root / f"{name} {batch}"
                steps = tuple(
                    Step(f"s{number}", "evaluate", {"text": f"{batch} {number}"}, {}) for number in range(_BATCH)
                )
                started = time.perf_counter()
                if name == "bare process":
                    _bare_processes(nurseries[name], steps, folder)
                else:
                    _steps(nurseries[name], steps, folder)
                if batch >= 0:
                    taken[name].append((time.perf_counter() - started) / _BATCH)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


@contextmanager
def _nursery(change: str) -> Iterator[Nursery]:
    with mock.patch.object(nursery, "_CHILD", _CHILD.format(change=change)), open_nursery() as opened:
        yield opened


def _bare_processes(opened: Nursery, steps: tuple[Step, ...], folder: Path) -> None:
    for number, step in enumerate(steps):
        sources = Sources(folder, folder, {})
        child = opened.start(Job(step, number, len(steps), "", {}, folder, sources, 1, (), folder / f"{step.id}.log"))
        said = child.connection.recv()
        assert isinstance(said, Done)
        child.connection.close()


def _steps(opened: Nursery, steps: tuple[Step, ...], folder: Path) -> None:
    store = open_store(folder / "store")
    store.prepare()
    with mock.patch.object(executor, "open_nursery", lambda: SharedNursery(opened)):
        execute(
            BuildGraph(steps, {}, {}, {}, {}),
            "family",
            store,
            Sources(folder, store.downloads, {}),
            lambda event: None,
            lambda step, record: None,
            logs=folder / "logs",
            memory={},
            options=Options(jobs=1, resources=Resources(1, 10**10)),
        )
