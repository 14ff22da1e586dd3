"""Tokens/s of a distillation now, and in an older commit of this repository.

    python -m tests.benchmarks.since [--commit aef9541] [--quick] [--json FILE] [--work FOLDER]

Needs the repository's history, and the package index (or what pip is configured with). SmolLM2-135M is distilled into 102.6M
parameters in steps of 4 x 256 tokens, as what was the default when the older commit was made, and as now, also in steps of 2 x
256: three times each, in turns, each in a process of its own on all cores. A step counts from the third on. For a quiet
machine: other programs cost the two unequally.
"""

from __future__ import annotations

import argparse
import functools
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.chain_parts import kept
from tests.benchmarks.distill_inputs import ROOT, inputs_in
from tests.benchmarks.harness import Result, run_kept_benchmark

COMMAND: Final = "python -m tests.benchmarks.since"
FORMER: Final = "aef9541"
LOOP: Final = Path(__file__).with_name("since_loop.py")
TOKENS: Final = 10_240
STEPS: Final[tuple[tuple[str, int], ...]] = (("then", 4), ("now", 4), ("now", 2))


def measure(commit: str, quick: bool, folder: Path) -> Result:
    """Times the loops in turns."""
    inputs = inputs_in(folder / "inputs")
    code = {"then": kept(folder, f"code-{commit}", lambda to, _: _checkout(commit, to)), "now": ROOT}
    asked = {"teacher": str(inputs.teacher), "corpus": str(inputs.corpus), "tokens": TOKENS // (2 if quick else 1)}
    rates: dict[tuple[str, int], list[float]] = {way: [] for way in STEPS}
    for _ in range(1 if quick else 3):
        for when, batch in STEPS:
            rates[when, batch].append(_timed(code[when], {**asked, "batch": batch}))
    base = statistics.median(rates[STEPS[0]])
    return Result(
        tuple(
            {
                "code": commit if when == "then" else "now",
                "tokens in a step": f"{batch} x 256",
                "tokens/s, median": round(statistics.median(found)),
                "of each run": ", ".join(f"{rate:.0f}" for rate in found),
                "times the first": round(statistics.median(found) / base, 2),
            }
            for (when, batch), found in rates.items()
        ),
        (),
    )


def _checkout(commit: str, to: Path) -> None:
    packed = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(to, filter="data")


def _timed(code: Path, asked: Mapping[str, Any]) -> float:
    """Tokens/s of a loop, by a process that has `code` as its colbuild."""
    run = [sys.executable, "-P", str(LOOP), json.dumps(asked)]
    done = subprocess.run(
        run, cwd=code, env={**os.environ, "PYTHONPATH": str(code)}, check=True, stdout=subprocess.PIPE
    )
    return float(done.stdout.splitlines()[-1])


# -- the command ----------------------------------------------------------------------------------------------------------


def _commit() -> str:
    """The option of this benchmark alone; the others are left in `sys.argv`."""
    parser = argparse.ArgumentParser(prog=COMMAND, add_help=False)
    parser.add_argument("--commit", default=FORMER)
    found, sys.argv[1:] = parser.parse_known_args()
    return str(found.commit)


if __name__ == "__main__":
    run_kept_benchmark("since", COMMAND, functools.partial(measure, _commit()), ("torch", "transformers"))
