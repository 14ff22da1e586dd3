"""What a step costs beyond its process: the same work carried out by the executor, and by bare processes."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final
from unittest import mock

from colbuild.fetch.contents import Sources
from colbuild.ops.step_run import StepRun
from colbuild.plan.cost.machine_resources import Resources
from colbuild.plan.drawing.build_graph import BuildGraph
from colbuild.plan.drawing.step import Step
from colbuild.plan.operation import Operation
from colbuild.progress import silent
from colbuild.run import executor
from colbuild.run.build_request import BuildRequest, Options
from colbuild.run.executor import execute
from colbuild.run.process import nursery, worker
from colbuild.run.process.job import Done, Job
from colbuild.run.process.nursery import Nursery, open_nursery
from colbuild.store import ActionRecord, open_store
from tests.helpers.nurseries import SharedNursery
from tests.helpers.steps import named_step

BATCH: Final = 10
"""Steps of one kind that run one after the other, before it is another kind's turn."""

BARE: Final = "bare process"
STEP: Final = "step"
UNSYNCED: Final = "step, without fsync"

_SERVE: Final = "tests.benchmarks.store_steps:serve_{}"
"""The function of a nursery that has imported what it always does, torch among it, and whose steps write some bytes."""

_KINDS: Final = {BARE: "bare", STEP: "step", UNSYNCED: "unsynced"}


def serve_step(descriptor: str) -> None:
    """Serves steps."""
    Operation.carry_out = lambda _, step, values: act(step, values)
    nursery.serve(descriptor)


def serve_bare(descriptor: str) -> None:
    """Serves bare processes."""
    worker.work = bare
    nursery.serve(descriptor)


def serve_unsynced(descriptor: str) -> None:
    """Serves steps that sync nothing."""
    os.fsync = lambda descriptor: None
    serve_step(descriptor)


def act(run: StepRun, params: Mapping[str, Any]) -> None:
    """The work of every step and every bare process."""
    (run.output / "made").write_text(params["text"], encoding="utf-8")


def bare(job: Job, connection: Connection, parent: int) -> None:
    """What a process does that has no executor and no store: the work, and an answer."""
    output = job.log.with_suffix("")
    output.mkdir(parents=True)
    act(StepRun({}, output, silent), job.step.params)
    record = ActionRecord("", job.step.id, job.step.op, job.step.params, {}, "", 0, 0.0, 0.0)
    connection.send(Done(record, fresh=True))
    connection.close()


@dataclass(frozen=True)
class Taken:
    """Milliseconds for each step or bare process, one at a time.

    Attributes:
        each: Kind -> the median of its batches.
        beyond: Of a step beyond a bare process: the median of the differences between batches that ran one after the other.
    """

    each: Mapping[str, float]
    beyond: float


def milliseconds_per_step(root: Path, batches: int) -> Taken:
    """Runs batches of each kind in turns."""
    taken: dict[str, list[float]] = {name: [] for name in _KINDS}
    with ExitStack() as stack:
        nurseries = {name: stack.enter_context(_nursery(kind)) for name, kind in _KINDS.items()}
        for name in _KINDS:
            open_store(root / name).prepare()
        for batch in range(batches + 1):
            for name, opened in nurseries.items():
                steps = tuple(
                    named_step(f"s{number}", "evaluate", {"text": f"{batch} {number}"}, {}) for number in range(BATCH)
                )
                run = _bare_processes if name == BARE else _steps
                started = time.perf_counter()
                run(opened, steps, root / name, root / f"{name} {batch}")
                taken[name].append((time.perf_counter() - started) * 1000 / BATCH)
    # The first batch waited for the imports.
    timed = {name: values[1:] for name, values in taken.items()}
    beyond = statistics.median(step - bare for step, bare in zip(timed[STEP], timed[BARE], strict=True))
    return Taken({name: statistics.median(values) for name, values in timed.items()}, beyond)


@contextmanager
def _nursery(kind: str) -> Iterator[Nursery]:
    with mock.patch.object(nursery, "_SERVE", _SERVE.format(kind)), open_nursery() as opened:
        yield opened


def _bare_processes(opened: Nursery, steps: tuple[Step, ...], store: Path, logs: Path) -> None:
    sources = Sources(store, store, {})
    for number, step in enumerate(steps):
        child = opened.start(Job(step, number, len(steps), "", {}, store, sources, 1, (), logs / f"{step.id}.log"))
        said = child.connection.recv()
        assert isinstance(said, Done)
        child.connection.close()


def _steps(opened: Nursery, steps: tuple[Step, ...], store: Path, logs: Path) -> None:
    opened_store = open_store(store)
    with mock.patch.object(executor, "open_nursery", lambda: SharedNursery(opened)):
        request = BuildRequest(
            BuildGraph(steps, {}, {}, {}, {}),
            "family",
            opened_store,
            Sources(store, opened_store.downloads, {}),
            lambda event: None,
            lambda step, record: None,
            logs,
            memory={},
            options=Options(jobs=1, resources=Resources(1, 10**10)),
        )
        execute(request)
