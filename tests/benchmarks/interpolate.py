"""Interpolating two models on disk: seconds and memory, beside copying one of them and beside mergekit.

    python -m tests.benchmarks.interpolate [--quick] [--json FILE] [--work FOLDER]

Two models of 0.5 GB in fp32 and two of 3 GB in bf16, of random weights in several files each, are mixed by a given alpha of
0.5: whole processes, in turns, their results removed and the disk synced before each. Warm, what they read lies in memory;
cold, it was dropped from there. `cp -r` copies one model. mergekit has an environment of its own, with its `linear` method and
weights of 0.5. Between unequal anchors a DesNet has fewer layers, FFN channels and heads than the larger one; mergekit cannot
mix these. Needs the package index, and 25 GB of disk. `--quick` takes the small models only.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.harness import Bar, Result, at_least, at_most, run_kept_benchmark
from tests.benchmarks.interpolate_inputs import HALF, ROOT, THREE, Anchors, Size, anchors_in

COPY: Final = "cp of one model"
MERGEKIT: Final = "mergekit, linear"
EQUAL: Final = "colbuild, anchors of one shape"
BETWEEN: Final = "colbuild, a DesNet between unequal anchors"
_MERGEKIT: Final = "mergekit==0.1.5"
_LEAST: Final = 200 * 10**6
"""Bytes that a process may hold beside two tensors."""


@dataclass(frozen=True)
class Turn:
    """One process.

    Attributes:
        seconds: From its start to its end.
        work: Without starting up, as it says itself; as `seconds` for those that say nothing.
        memory: The most bytes it held, pages of mapped files included.
    """

    seconds: float
    work: float
    memory: int


class Bench:
    """Runs processes in a folder.

    Args:
        folder: Where models and mergekit's environment are kept.
        size: Of the models.
    """

    def __init__(self, folder: Path, size: Size) -> None:
        self.size, self._folder = size, folder
        self.anchors: Anchors = anchors_in(folder / "inputs", size)
        self._output = folder / "output"

    def commands(self) -> dict[str, list[str]]:
        """What is compared."""
        anchors, python = self.anchors, [sys.executable, "-m", "tests.benchmarks.interpolate_ours"]
        return {
            COPY: ["cp", "-r", str(anchors.one), str(self._output)],
            MERGEKIT: self._mergekit(),
            EQUAL: [*python, self._job(anchors.other, {})],
            BETWEEN: [*python, self._job(anchors.narrow, self.size.between)],
        }

    def turn(self, command: Sequence[str], cold: bool) -> Turn:
        """Runs one process on what lies in memory, or must be read from the disk."""
        self._clear()
        for file in self.anchors.files:
            _drop(file) if cold else _read(file)
        found = run_process(command)
        self._clear()
        return found

    def largest_tensor(self) -> int:
        """Bytes of the anchors' largest tensor: the embedding."""
        config = self.size.config
        return int(config["vocab_size"]) * int(config["hidden_size"]) * (4 if self.size.dtype == "float32" else 2)

    def _job(self, smaller: Path, lengths: Mapping[str, int]) -> str:
        job = {"larger": self.anchors.one, "smaller": smaller, "output": self._output, "shard": self.size.shard}
        return json.dumps({**{key: str(value) for key, value in job.items()}, "lengths": dict(lengths)})

    def _mergekit(self) -> list[str]:
        home = self._folder / "mergekit"
        if not home.exists():
            subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
            import torch

            wanted = [_MERGEKIT, f"torch=={torch.__version__.split('+')[0]}"]
            subprocess.run([str(home / "bin" / "python"), "-m", "pip", "install", "-q", *wanted], check=True)
        models = [
            {"model": str(folder), "parameters": {"weight": 0.5}} for folder in (self.anchors.one, self.anchors.other)
        ]
        plan = self._folder / f"{self.size.dtype}.yaml"
        # JSON is YAML.
        plan.write_text(
            json.dumps({"merge_method": "linear", "dtype": self.size.dtype, "models": models}), encoding="utf-8"
        )
        shard = f"{self.size.shard // 10**6}M"
        run = [str(home / "bin" / "mergekit-yaml"), str(plan), str(self._output), "--no-copy-tokenizer"]
        return [*run, "--out-shard-size", shard, "--quiet"]

    def _clear(self) -> None:
        shutil.rmtree(self._output, ignore_errors=True)
        os.sync()


def _read(file: Path) -> None:
    with file.open("rb") as opened:
        while opened.read(2**24):
            pass


def _drop(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


_LAUNCHER: Final = """
import json, os, subprocess, sys, time
began = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
told = process.stdout.read().decode()
_, status, usage = os.wait4(process.pid, 0)
process.returncode = os.waitstatus_to_exitcode(status)
print(json.dumps([process.returncode, time.perf_counter() - began, usage.ru_maxrss * 1024, told]))
"""
"""Starts a process from a small one: the most that a process is said to have held begins with what its parent held."""


def run_process(command: Sequence[str]) -> Turn:
    """Runs a process to its end, in this repository.

    Raises:
        RuntimeError: It failed.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "passive"}
    launch = [sys.executable, "-S", "-c", _LAUNCHER, *command]
    done = subprocess.run(launch, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True)
    code, seconds, memory, told = json.loads(done.stdout)
    if code:
        raise RuntimeError(f"{' '.join(command)[:300]} failed with {code}")
    work = seconds
    with contextlib.suppress(ValueError):
        work = float(told)
    return Turn(seconds, work, memory)


def measure(quick: bool, folder: Path) -> Result:
    """All rows and bars."""
    rows: list[dict[str, Any]] = []
    bars: list[Bar] = []
    for size in (HALF,) if quick else (HALF, THREE):
        bench = Bench(folder, size)
        commands = bench.commands()
        found: dict[tuple[str, bool], list[Turn]] = {(name, cold): [] for name in commands for cold in (False, True)}
        for _ in range(3):
            for (name, cold), turns in found.items():
                turns.append(bench.turn(commands[name], cold))
        rows += [_row(bench, name, found) for name in commands]
        bars += _bars(bench, found)
    return Result(tuple(rows), tuple(bars))


def _median(turns: Sequence[Turn], of: Callable[[Turn], float]) -> float:
    return statistics.median(of(turn) for turn in turns)


def _row(bench: Bench, name: str, found: Mapping[tuple[str, bool], list[Turn]]) -> dict[str, Any]:
    warm, cold = found[name, False], found[name, True]
    ours = name in (EQUAL, BETWEEN)
    return {
        "models": bench.size.name,
        "what": name,
        "warm, s": round(_median(warm, lambda turn: turn.seconds), 2),
        "warm without start-up, s": round(_median(warm, lambda turn: turn.work), 2) if ours else None,
        "cold, s": round(_median(cold, lambda turn: turn.seconds), 2),
        "peak memory, MB": round(max(turn.memory for turn in (*warm, *cold)) / 1e6),
    }


def _bars(bench: Bench, found: Mapping[tuple[str, bool], list[Turn]]) -> list[Bar]:
    def seconds(name: str, cold: bool = False) -> float:
        return _median(found[name, cold], lambda turn: turn.seconds)

    name = bench.size.name
    memory = max(turn.memory for key in (EQUAL, BETWEEN) for cold in (False, True) for turn in found[key, cold])
    work = _median(found[EQUAL, False], lambda turn: turn.work)
    bars = [
        at_most(f"{name}, warm: times cp, start-up included", seconds(EQUAL) / seconds(COPY), 2.0),
        at_most(f"{name}, warm: times cp, without start-up", work / seconds(COPY), 1.2),
        at_most(f"{name}, cold: times cp", seconds(EQUAL, True) / seconds(COPY, True), 2.0),
        at_least(f"{name}, warm: times faster than mergekit", seconds(MERGEKIT) / seconds(EQUAL), 8.0),
        at_most(
            f"{name}: memory beyond two of the largest tensors, MB",
            (memory - 2 * bench.largest_tensor()) / 1e6,
            _LEAST / 1e6,
        ),
    ]
    return [*bars, at_most(f"{name}: peak memory, MB", memory / 1e6, 300.0)] if bench.size is THREE else bars


if __name__ == "__main__":
    run_kept_benchmark("interpolate", "python -m tests.benchmarks.interpolate", measure, ("torch", "safetensors"))
