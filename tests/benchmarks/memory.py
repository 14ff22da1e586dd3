"""Whether the plan tells the memory that steps need: what it says against the peak, for each kind of step on three models.

`python -m tests.benchmarks.memory [--quick] [--json FILE] [--work FOLDER]`. Needs the package index (or what pip is configured
with) for SmolLM2-135M; `--quick` measures the smallest model alone. Each step is built alone; its peak is the largest
proportional set size (PSS) of the build's whole process tree while it runs. Run it where nothing else runs that loads torch:
pages of libraries that others share count in part.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.harness import Result, at_least, at_most, run_kept_benchmark
from tests.benchmarks.memory_families import FAMILIES, TARGETS, Model, models, write_family, write_project
from tests.benchmarks.memory_tree import peaks_of
from tests.benchmarks.project import colbuild

COMMAND: Final = "python -m tests.benchmarks.memory"
ABOVE: Final = 1.15
BELOW: Final = 0.95


def measure(quick: bool, work: Path) -> Result:
    """Builds the families one after the other."""
    rows: list[dict[str, Any]] = []
    for model in models(quick):
        folder = work / model.name.split(",")[0]
        for family in FAMILIES:
            kept = folder / f"{family}.json"
            if not kept.exists():
                if not (folder / "text.txt").exists():
                    write_project(folder, model)
                kept.write_text(json.dumps(_measured(folder, model, family)), encoding="utf-8")
            rows += _rows(folder, model, family, json.loads(kept.read_text(encoding="utf-8")))
    shares = [row["plan / peak"] for row in rows]
    bars = (
        at_most("plan / peak, the largest", max(shares), ABOVE),
        at_least("plan / peak, the smallest", min(shares), BELOW),
    )
    return Result(tuple(rows), bars)


def _measured(project: Path, model: Model, family: str) -> Mapping[str, int]:
    """Step -> bytes at its peak."""
    spec = write_family(project, model, family)
    return peaks_of(project, project / ".colbuild", spec, *TARGETS.get(family, ()))


def _rows(project: Path, model: Model, family: str, peaks: Mapping[str, int]) -> list[dict[str, Any]]:
    # In a store of its own nothing is built yet, so that the plan estimates every step.
    planned = _planned(project, family)
    return [
        {
            "model": model.name,
            "family": family,
            "step": step,
            "plan, MB": round(planned[step] / 1e6),
            "peak, MB": round(peak / 1e6),
            "plan / peak": round(planned[step] / peak, 3),
        }
        for step, peak in peaks.items()
    ]


def _planned(project: Path, family: str) -> Mapping[str, int]:
    text = colbuild(project, "plan", f"specs/{family}.yaml", "--json", "--store", str(project / "empty"))
    return {step["id"]: step["estimate"]["memory"] for step in json.loads(text)["steps"]}


if __name__ == "__main__":
    run_kept_benchmark("memory", COMMAND, measure, ("torch", "transformers", "onnxruntime"))
