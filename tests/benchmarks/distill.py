"""Distilling on this machine: TRL's GKD trainer, the plain dense loop, and colbuild, in tokens/s and memory.

    python -m tests.benchmarks.distill [--quick] [--json FILE] [--work FOLDER]

All start from the same student of 92M parameters, nested in its teacher SmolLM2-135M, and train on the same text in steps of
4 x 512 tokens in bf16; TRL's on the forward KL alone, the others on 0.6 of it and 0.4 of cross-entropy. Each loop is a process
of its own and they take turns; a step counts from the third on, so that compiling is not in it. It stands in a column: seconds
until the first step is done beyond a step's own, imports and loading included, of the first process and, with what that one
compiled, of later ones. Peak memory is the process's; with 8 x 1,024 tokens a step it is measured in a run of two steps.

glibc is told to keep its pages in every process of colbuild; the other loops run as a user installs them and, in rows of their
own, with the same settings. Held-out loss is that of colbuild's models after the steps that were timed, all of them on the
same text: a training with a cached teacher against one that has it beside it.

TRL is installed into an environment of its own, `trl` in the work folder, with our constraints. `--quick` does not install it.
Two kinds of processors have a file each in docs/results: `distill.json` of an AMD EPYC, and `distill_amx.json` of a Xeon whose
matrix products are five times as fast, so that everything else counts more. Rows and bars of a GPU are there where one is.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.distill_inputs import inputs_in
from tests.benchmarks.distill_loops import (
    CACHED,
    COMPILED,
    DENSE,
    DENSE_KEPT,
    EAGER,
    EAGER_CACHED,
    GKD,
    GKD_KEPT,
    Batches,
    Loop,
    Timing,
    Workshop,
)
from tests.benchmarks.harness import Bar, Result, at_least, at_most, run_kept_benchmark

LARGE: Final = Batches(steps=2, batch=8, sequence=1024)
ON_GPU: Final = Batches(steps=20, batch=32, sequence=1024)
_OURS: Final = (EAGER, EAGER_CACHED, COMPILED, CACHED)
_IN_LARGE: Final = (DENSE, GKD, EAGER, COMPILED)
_COLUMNS: Final = (
    "tokens/s",
    "slowest and fastest step",
    "peak GiB",
    "peak GiB, 8 x 1,024",
    "start s",
    "start s, later",
    "held-out loss",
)


def measure(quick: bool, folder: Path) -> Result:
    """All rows: on the CPU, then on a GPU if there is one."""
    workshop = Workshop(inputs_in(folder / "inputs"), folder)
    loops: list[Loop] = [DENSE, DENSE_KEPT, EAGER, EAGER_CACHED, COMPILED, CACHED]
    if workshop.trl_python().exists() if quick else workshop.install_trl():
        loops += [GKD, GKD_KEPT]
    batches = Batches(steps=4 if quick else 8, batch=4, sequence=512)
    tokens = 4000 if quick else 16_000
    with tempfile.TemporaryDirectory(dir=folder) as models:
        timings = _rounds(workshop, loops, batches, 1 if quick else 3, Path(models))
        made = {loop: model for loop in _OURS if (model := _model(Path(models), loop)).exists()}
        losses = {
            loop: workshop.score(model, tokens, model.with_suffix(".scores"))["loss"] for loop, model in made.items()
        }
    large = {} if quick else {loop: workshop.time(loop, LARGE) for loop in _IN_LARGE if loop in loops}
    rows = [_row(loop, batches, timings[loop], large.get(loop), losses.get(loop)) for loop in loops]
    speed = {loop: batches.tokens / _step(timings[loop]) for loop in loops}
    bars = _bars(speed, large, losses)
    name = workshop.gpu()
    if name is not None and not quick:
        more_rows, more_bars = _on_gpu(Workshop(workshop.inputs, folder, "cuda"), name)
        rows += more_rows
        bars += more_bars
    return Result(tuple(rows), tuple(bars))


def _rounds(
    workshop: Workshop, loops: Sequence[Loop], batches: Batches, rounds: int, models: Path | None = None
) -> dict[Loop, list[Timing]]:
    """Each loop once a round, in turns; the models of colbuild's first round are left in `models`."""
    timings: dict[Loop, list[Timing]] = {loop: [] for loop in loops}
    for turn in range(rounds):
        for loop in loops:
            keep = models is not None and turn == 0 and loop in _OURS
            timing = workshop.time(loop, batches, _model(models, loop) if models is not None and keep else None)
            if timing is None:
                raise SystemExit(f"memory ran out in {loop.name}")
            timings[loop].append(timing)
    return timings


def _model(models: Path, loop: Loop) -> Path:
    return models / str(_OURS.index(loop))


def _steady(timings: Sequence[Timing]) -> list[float]:
    """Seconds of the steps that count. Each timing lacks the first; the second may still compile or fill caches."""
    return [seconds for timing in timings for seconds in timing.steps[1:]]


def _step(timings: Sequence[Timing]) -> float:
    """Seconds of a step: the median of the rounds' medians."""
    return statistics.median(statistics.median(_steady([timing])) for timing in timings)


def _row(
    loop: Loop, batches: Batches, timings: Sequence[Timing], large: Timing | None, loss: float | None
) -> dict[str, Any]:
    steps = _steady(timings)
    later = [timing.start for timing in timings[1:]]
    return {
        "loop": loop.name,
        "tokens/s": round(batches.tokens / _step(timings)),
        "slowest and fastest step": f"{max(steps):.2f} and {min(steps):.2f} s",
        "peak GiB": round(max(timing.peak_gib for timing in timings), 1),
        "peak GiB, 8 x 1,024": None if large is None else round(large.peak_gib, 1),
        "start s": round(timings[0].start),
        "start s, later": round(statistics.median(later)) if later else None,
        "held-out loss": loss,
    }


def _bars(speed: Mapping[Loop, float], large: Mapping[Loop, Timing | None], losses: Mapping[Loop, float]) -> list[Bar]:
    """The bars of the issue for which both sides were measured."""
    ours, cached = (COMPILED, CACHED) if COMPILED in speed else (EAGER, EAGER_CACHED)
    bars = [
        at_least(f"tokens/s over the {other.name}", speed[ours] / speed[other], bar)
        for other, bar in ((GKD, 2.5), (DENSE, 2.0), (GKD_KEPT, 1.5), (DENSE_KEPT, 1.4))
        if other in speed
    ]
    dense = large.get(DENSE)
    peaks = [timing.peak_gib for loop in _OURS if (timing := large.get(loop)) is not None]
    if dense is not None and peaks:
        bars.append(
            at_most("peak memory at 8 x 1,024 tokens, of the plain dense loop's", max(peaks) / dense.peak_gib, 0.4)
        )
    bars.append(at_most("time with a cached teacher, of that with it online", speed[ours] / speed[cached], 0.72))
    bars.append(
        at_most("held-out loss with a cached teacher, difference in nats", abs(losses[cached] - losses[ours]), 0.02)
    )
    return bars


def _on_gpu(workshop: Workshop, name: str) -> tuple[list[dict[str, Any]], list[Bar]]:
    """The dense loop and colbuild on a GPU, with batches that fill it."""
    loops = (DENSE, COMPILED)
    timings = _rounds(workshop, loops, ON_GPU, 3)
    rows = [
        {**_row(loop, ON_GPU, timings[loop], None, None), "loop": f"{loop.name}, {name}, 32 x 1,024"} for loop in loops
    ]
    bars = [
        at_least(f"tokens/s over the plain dense loop, {name}", _step(timings[DENSE]) / _step(timings[COMPILED]), 1.5)
    ]
    shares = [timing.mfu for timing in timings[COMPILED] if timing.mfu is not None]
    if shares:
        bars.append(at_least(f"share of what an {name} can do", statistics.median(shares), 0.4))
    return rows, bars


if __name__ == "__main__":
    run_kept_benchmark("distill", "python -m tests.benchmarks.distill", measure, ("torch", "transformers"))
