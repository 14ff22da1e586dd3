"""The process that `since` times: a distillation, with what an older commit has too and nothing of the benchmarks'."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

PARAMETERS: Final = 102_600_000


def distil(asked: Mapping[str, Any]) -> float:
    """Tokens/s of the steps behind the second."""
    _prepare()
    from colbuild.arch import read_structure
    from colbuild.arch.solving import solve_down
    from colbuild.spec.model.recipe import Recipe
    from tests.helpers.steps import run_step

    inputs = {role: Path(asked[role]) for role in ("teacher", "corpus")}
    whole = read_structure(json.loads((inputs["teacher"] / "config.json").read_text(encoding="utf-8")))
    values = {"sequence": 256, "batch": asked["batch"], "tokens": asked["tokens"], "seed": 0, "elastic": None}
    params = {
        "shape": asdict(solve_down(whole, whole.shape, PARAMETERS)),
        "split": "train",
        "recipe": Recipe.model_validate(values, strict=False).model_dump(mode="json"),
    }
    ends: list[tuple[int, float]] = []

    def report(progress: Any) -> None:
        if progress.unit == "tokens" and (not ends or progress.done > ends[-1][0]):
            ends.append((progress.done, time.perf_counter()))

    with TemporaryDirectory() as made:
        run_step("distill", inputs, params, Path(made), report, settings={"evaluate_every": 0.0})
    (first, began), (last, ended) = ends[2], ends[-1]
    return (last - first) / (ended - began)


def _prepare() -> None:
    """What a build does to a step's process; threads are watched since a later commit."""
    from colbuild.run.process.environment import prepare_process

    try:
        from colbuild.run.process.spinning import let_threads_spin, watch
    except ImportError:
        prepare_process()
        return
    let_threads_spin()
    prepare_process()
    import torch

    watch(torch.get_num_threads())


if __name__ == "__main__":
    print(distil(json.loads(sys.argv[1])))
