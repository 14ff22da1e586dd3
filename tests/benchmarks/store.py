"""The store and the executor: builds with nothing to do, what a step costs, hashing, publishing, and steps side by side.

    python -m tests.benchmarks.store [--quick] [--json FILE]

A build with nothing to do is the whole process, beside DVC and Snakemake as in `tests.benchmarks.plan`. What a step costs
beyond its process is the difference to bare processes, forked by the same kind of nursery, that do the same work with no
executor and no store. Hashing takes turns with `sha256sum` and `openssl` on a file that lies in memory. Written bytes are what
the kernel counted for this process, which Linux does.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from colbuild.hashing import hash_file
from colbuild.plan.cost.machine import CACHE_VARIABLE
from colbuild.store import open_store
from tests.benchmarks.harness import Bar, Result, at_least, at_most, run_benchmark
from tests.benchmarks.plan import HUNDRED_STEPS, PEERS, REPOSITORY, cpu_seconds, peer_seconds, peers_folder
from tests.benchmarks.store_family import finished_family
from tests.benchmarks.store_steps import BARE, BATCH, STEP, milliseconds_per_step
from tests.helpers.project import copy_project

_COLUMNS: Final = ("steps", "CPU seconds", "seconds", "ms each", "MB/s", "MB written")
_MODEL: Final = 500_000_000
_BLOCK: Final = 4_000_000

_IN_ONE: Final = """
import sys
import torch
from colbuild.cli.app import run_command
from colbuild.run import executor
from tests.helpers.nurseries import ThreadNursery

class OneProcess(ThreadNursery):
    def start(self, job):
        torch.set_num_threads(job.threads)
        return super().start(job)

executor.open_nursery = OneProcess
sys.exit(run_command(sys.argv[1:]))
"""
"""Builds with each step in a thread of one process, computing with as many threads as it would in a process of its own."""

Part = tuple[list[dict[str, Any]], list[Bar]]


def measure(quick: bool) -> Result:
    """All rows, one part after the other."""
    rows: list[dict[str, Any]] = []
    bars: list[Bar] = []
    for part in (_nothing_to_do, _steps, _hashing, _publishing, _side_by_side):
        with tempfile.TemporaryDirectory() as folder:
            more_rows, more_bars = part(Path(folder), quick)
        rows += more_rows
        bars += more_bars
    return Result(tuple(rows), tuple(bars))


def _row(what: str, **values: float) -> dict[str, Any]:
    named = {name.replace("_", " ").replace("MB per s", "MB/s"): value for name, value in values.items()}
    return {"what": what, **{column: named.get(column) for column in _COLUMNS}}


def _nothing_to_do(root: Path, quick: bool) -> Part:
    runs = 2 if quick else 5
    family, cache = root / "family", root / "cache"
    family.mkdir()
    steps = finished_family(family, HUNDRED_STEPS)
    taken = {
        name: cpu_seconds([sys.executable, "-m", "colbuild", name], family, cache, runs) for name in ("build", "plan")
    }
    rows = [_row(f"colbuild {name}, nothing to do", steps=steps, CPU_seconds=taken[name]) for name in taken]
    python = peers_folder(root)
    for name in PEERS:
        seconds = peer_seconds(name, python, root, steps, cache, runs)
        if seconds is not None:
            rows.append(_row(f"{name}, nothing to do", steps=steps, CPU_seconds=seconds))
    return rows, [
        at_most("CPU seconds of a build with nothing to do, about 100 steps", taken["build"], 0.7),
        at_most("heavy libraries that it imports", _heavy_imports(family, cache), 0.0),
    ]


def _heavy_imports(family: Path, cache: Path) -> float:
    code = (
        "import sys; from colbuild.cli.app import run_command; assert run_command(['build']) == 0; "
        "print(sum(name in sys.modules for name in ('torch', 'transformers', 'onnx', 'onnxruntime', 'fsspec')))"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), CACHE_VARIABLE: str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=family, env=environment, capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[-1])


def _steps(root: Path, quick: bool) -> Part:
    batches = 8 if quick else 30
    taken = milliseconds_per_step(root, batches)
    rows = [_row(f"{name}, one after the other", steps=batches * BATCH, ms_each=ms) for name, ms in taken.each.items()]
    assert {BARE, STEP} <= taken.each.keys()
    return rows, [at_most("milliseconds of a step beyond its process", taken.beyond, 10.0)]


def _hashing(root: Path, quick: bool) -> Part:
    path = root / "model"
    _write(path)
    ways: dict[str, Callable[[], object]] = {
        "sha256sum": lambda: subprocess.run(["sha256sum", path], check=True, capture_output=True),
        "openssl": lambda: subprocess.run(["openssl", "dgst", "-sha256", path], check=True, capture_output=True),
        "hash_file": lambda: hash_file(path),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    # The first of each brings the file into memory.
    for turn in range(4 if quick else 10):
        for name, way in ways.items():
            seconds = _timed(way)
            if turn:
                taken[name].append(seconds)
    middle = {name: statistics.median(seconds) for name, seconds in taken.items()}
    rows = [
        _row(f"{name}, 500 MB", seconds=seconds, MB_per_s=_MODEL / 1e6 / seconds) for name, seconds in middle.items()
    ]
    share = middle["sha256sum"] / middle["hash_file"]
    return rows, [at_least("speed of hashing, of sha256sum's", share, 0.8)]


def _publishing(root: Path, quick: bool) -> Part:
    """A step's output of one large file on its way into the store and to `out/`."""
    store = open_store(root / "store")
    store.prepare()
    rows, total = [], 0.0

    def count(what: str, act: Callable[[], object]) -> None:
        nonlocal total
        before = _written()
        seconds = _timed(act)
        written = (_written() - before) / 1e6
        total += written
        rows.append(_row(what, seconds=seconds, MB_written=written))

    with store.draft() as draft:
        count("a step writes 500 MB", lambda: _write(draft / "files/model.safetensors"))
        digests: list[str] = []
        count("they are published", lambda: digests.append(store.publish(draft).digest))
    count("and put into out/", lambda: store.place(digests[0], root / "out"))
    return rows, [at_most("bytes written for each byte of a published model", total * 1e6 / _MODEL, 1.001)]


def _side_by_side(root: Path, quick: bool) -> Part:
    inputs = root / "inputs"
    subprocess.run([sys.executable, "-m", "tests.helpers.tiny", str(inputs)], cwd=REPOSITORY, check=True)
    ways = {
        "tiny family": ["-m", "colbuild", "build"],
        "tiny family, --jobs 1": ["-m", "colbuild", "build", "--jobs", "1"],
        "tiny family, --jobs 1, all in one process": ["-c", _IN_ONE, "build", "--jobs", "1"],
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for turn in range(1 if quick else 3):
        for number, (name, command) in enumerate(ways.items()):
            folder = copy_project(root / f"{turn}-{number}", inputs)
            started = time.perf_counter()
            # Threads as each step is given, not as the tests ask for.
            cpu = cpu_seconds([sys.executable, *command, "specs/tiny.yaml"], folder, root / "cache", 1, threads=None)
            taken[name].append((time.perf_counter() - started, cpu))
    return [
        _row(
            name,
            seconds=statistics.median(wall for wall, _ in pairs),
            CPU_seconds=statistics.median(cpu for _, cpu in pairs),
        )
        for name, pairs in taken.items()
    ], []


def _timed(act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def _write(path: Path) -> None:
    """A model's worth of bytes; the kernel must not find out that they are alike."""
    block = os.urandom(_BLOCK)
    with path.open("wb", buffering=0) as file:
        for _ in range(_MODEL // _BLOCK):
            file.write(block)


def _written() -> int:
    """Bytes that this process has given the kernel to write so far, copies by the kernel included."""
    lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar:"))


if __name__ == "__main__":
    run_benchmark(
        "store", "python -m tests.benchmarks.store", measure, ("torch", "pydantic", "pyyaml", "rich", "typer")
    )
