"""The default family from nothing to packages: how long it takes, how much memory, and how good its models are.

`python -m tests.benchmarks.first_family [--quick] [--json FILE]`. Needs the package index (or what pip is configured with) and
builds `specs/family.yaml` in a fresh store; `--quick` builds the same with a tenth of the training. Each DesNet stands next to
its baselines, scored on the same calibration tokens in the same step: the larger anchor's subset, and the smaller anchor
expanded by silent parts.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.harness import Result, at_most, run_benchmark

ROOT = Path(__file__).parents[2]
COMMAND = "python -m tests.benchmarks.first_family"
SPEC = "specs/family.yaml"


@dataclass(frozen=True)
class Usage:
    """What a command took: seconds on the clock, seconds of CPU, and the peak memory of its largest process in GiB."""

    wall: float
    cpu: float
    peak_gib: float
    output: str


def measured(arguments: list[str], folder: Path) -> Usage:
    """Runs colbuild in a folder."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("COLBUILD_STORE", None)
    done = subprocess.run(
        [sys.executable, "-m", "colbuild", *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    # ru_maxrss is the largest of all children so far; the build is by far the largest.
    return Usage(time.monotonic() - started, cpu, after.ru_maxrss / 2**20, done.stdout)


def measure(quick: bool) -> Result:
    """Builds the family and measures it."""
    with tempfile.TemporaryDirectory() as temporary:
        project = Path(temporary)
        for name in ("specs", "recipes", "exports"):
            shutil.copytree(ROOT / name, project / name)
        if quick:
            _shorten(project / SPEC)
        build = measured(["build", SPEC, "--json"], project)
        again = measured(["build", SPEC], project)
        plan = measured(["plan", SPEC], project)
        status = json.loads(measured(["status", SPEC, "--json"], project).output)
        rows = tuple(_row(model, project) for model in status["models"])
        seconds = _seconds_by_operation(build.output)
    rows += tuple({**dict.fromkeys(rows[0]), "model": f"time: {op}", "seconds": took} for op, took in seconds.items())
    bars = (
        at_most("whole build, minutes on 2 cores", build.wall / 60, 15.0),
        at_most("whole build, GiB of the largest process", build.peak_gib, 6.0),
        at_most("plan, CPU seconds", plan.cpu, 1.0),
        at_most("second build, CPU seconds", again.cpu, 1.0),
    )
    return Result(rows, bars)


def _shorten(spec: Path) -> None:
    lines = spec.read_text(encoding="utf-8").splitlines()
    spec.write_text(
        "\n".join("  tokens: 4k" if line.startswith("  tokens: ") else line for line in lines) + "\n", encoding="utf-8"
    )


def _row(model: dict[str, Any], project: Path) -> dict[str, Any]:
    scores = project / ".colbuild" / "steps" / "smol-edge" / f"interpolate {model['name']}.json"
    found = json.loads(scores.read_text(encoding="utf-8"))["ledger"]["interpolation"] if scores.exists() else None
    return {
        "model": model["name"],
        "made from": model["origin"] or model["kind"],
        "parameters": model["parameters"],
        "bits/byte": model["bits_per_byte"],
        "perplexity": model["perplexity"],
        "top-1 agreement": model["agreement"],
        "package MB": round(model["packages"][0]["size"] / 1e6, 1) if model["packages"] else None,
        "calibration loss": found["best"]["loss"] if found else None,
        "of the larger anchor's subset": _loss(found, 0.0) if found else None,
        "of the smaller anchor, expanded": _loss(found, 1.0) if found else None,
        "seconds": None,
    }


def _loss(found: dict[str, Any], corner: float) -> float:
    """The loss of the candidate whose coordinates are all 0 (subset) or all 1 (expand)."""
    return next(
        entry["loss"]
        for entry in found["candidates"]
        if not entry["nested"] and all(value == corner for key, value in entry.items() if key not in ("loss", "nested"))
    )


def _seconds_by_operation(output: str) -> dict[str, float]:
    taken: dict[str, float] = {}
    for line in output.splitlines():
        event = json.loads(line)
        if event["event"] == "step_finished":
            operation = event["step"].split(" ")[0]
            taken[operation] = round(taken.get(operation, 0.0) + event["seconds"], 1)
    return taken


if __name__ == "__main__":
    run_benchmark("first_family", COMMAND, measure, ("torch", "transformers", "onnx", "onnxruntime"))
