"""Elastic steps or none: which gives the best family of DesNets for the same tokens, and for the same FLOPs.

`python -m tests.benchmarks.elastic [--quick] [--json FILE] [--seeds 3] [--tokens 80k] [--equal WHAT] [--form FORM] [--seed N]
[--work FOLDER]`. Needs the package index (or what pip is configured with). Two anchors of SmolLM2-135M are distilled, of
102.6M and 76.1M parameters, by the operations that a build runs; nine sizes from one to the other, both included, are made of
them by `group_alpha` on 1,024 tokens of held-out text, and scored on other such text. With equal FLOPs the elastic step gets
as many tokens as its chain may cost in all; `--equal tokens` or `--equal FLOPs` compares one way only, `--form` one form.

What is finished stays in FOLDER (`scores/`, and the anchors of the seed at hand), so that a run that was stopped goes on. The
scores in docs/results/elastic are older: there mixtures were chosen on training text, and the recipe was another.
`--seed N` does one seed and makes no table: two of them side by side, with a thread each, are done sooner than one after the
other, and a run without it then puts all together. `--quick` is one seed with a fortieth of the tokens, at three sizes and
equal tokens only.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from colbuild.run.process.environment import prepare_process
from colbuild.units import parse_count
from tests.benchmarks.elastic_chain import BUDGETS, ELASTIC, Bench, Setting, Way
from tests.benchmarks.harness import Bar, Result, at_least, at_most, run_kept_benchmark

COMMAND = "python -m tests.benchmarks.elastic"


def measure(setting: Setting) -> Result:
    """Trains, mixes and scores what is not yet in `scores/`."""
    scores = score(setting, range(setting.seeds))
    bench = Bench(setting)
    rows = tuple(_row(bench, form, budget, scores) for form, budget in _compared(setting))
    return Result(rows, _bars(setting, scores) if "tokens" in setting.budgets else ())


def score(setting: Setting, seeds: Iterable[int]) -> dict[str, Any]:
    """The scores of some seeds, each of which is kept as soon as it is known."""
    prepare_process()
    bench, kept = Bench(setting), setting.work / "scores"
    kept.mkdir(exist_ok=True)
    found = {}
    for seed in seeds:
        for form, budget in _compared(setting):
            key = _key(setting, form, budget, seed)
            path = kept / f"{key}.json"
            if not path.exists():
                print(f"{key} …", file=sys.stderr, flush=True)
                path.write_text(json.dumps(bench.scores(Way(form, budget, seed))) + "\n", encoding="utf-8")
            found[key] = json.loads(path.read_text(encoding="utf-8"))
        bench.forget(seed)
    return found


def _compared(setting: Setting) -> list[tuple[str, str]]:
    """(form, budget): the plain chain is what the others get as many tokens, or FLOPs, as."""
    return [("none", "tokens"), *((form, budget) for budget in setting.budgets for form in setting.forms)]


def _key(setting: Setting, form: str, budget: str, seed: int) -> str:
    return (
        f"{setting.tokens} tokens, {setting.sizes} sizes, {form}, equal {budget}, chosen on held-out text, seed {seed}"
    )


def _row(bench: Bench, form: str, budget: str, scores: dict[str, Any]) -> dict[str, Any]:
    setting, way = bench.setting, Way(form, budget, 0)
    of_seeds = [scores[_key(setting, form, budget, seed)] for seed in range(setting.seeds)]
    means = [statistics.fmean(each["loss"]) for each in of_seeds]
    by_size = [statistics.fmean(losses) for losses in zip(*(each["loss"] for each in of_seeds), strict=True)]
    return {
        "elastic": form,
        "equal": "–" if form == "none" else budget,
        "tokens": " + ".join(f"{training.tokens:,}" for training in bench.anchors(way)),
        "TFLOPs": round(bench.flops(way) / 1e12, 1),
        f"mean of {setting.sizes}": round(statistics.fmean(means), 4),
        "of each seed": ", ".join(f"{mean:.3f}" for mean in means),
        **{f"{size / 1e6:.1f}M": round(loss, 3) for size, loss in zip(bench.sizes, by_size, strict=True)},
        "prefix used": f"{sum(sum(each['nested']) for each in of_seeds):.0f} of {setting.seeds * (setting.sizes - 2)}",
    }


def _bars(setting: Setting, scores: dict[str, Any]) -> tuple[Bar, ...]:
    """What the better elastic form gains in between at equal tokens, and what it loses at its worse end."""

    def gains(form: str) -> list[float]:
        """By how much it is below the plain chain at each size, the mean over seeds."""
        pairs = [
            [scores[_key(setting, which, "tokens", seed)]["loss"] for which in ("none", form)]
            for seed in range(setting.seeds)
        ]
        each = [[plain - ours for plain, ours in zip(*pair, strict=True)] for pair in pairs]
        return [statistics.fmean(values) for values in zip(*each, strict=True)]

    found = {form: gains(form) for form in setting.forms}
    best = max(found, key=lambda form: statistics.fmean(found[form][1:-1]))
    return (
        at_least(f"'{best}' below no elastic steps in between, nats", statistics.fmean(found[best][1:-1]), 0.03),
        at_most(f"'{best}' above no elastic steps at its worse end, nats", -min(found[best][0], found[best][-1]), 0.05),
    )


def _options() -> argparse.Namespace:
    """Options of this benchmark alone; the others are left in `sys.argv`."""
    parser = argparse.ArgumentParser(prog=COMMAND, add_help=False)
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--equal", choices=BUDGETS)
    parser.add_argument("--form", choices=ELASTIC)
    parser.add_argument("--tokens", type=parse_count)
    found, sys.argv[1:] = parser.parse_known_args()
    return found


def _run(options: argparse.Namespace, quick: bool, work: Path) -> Result:
    seeds, tokens = options.seeds or (1 if quick else 3), options.tokens or (2_048 if quick else 80_000)
    budgets = (options.equal,) if options.equal else BUDGETS
    forms = (options.form,) if options.form else ELASTIC
    setting = Setting(work, seeds, tokens, budgets=budgets, forms=forms)
    if quick:
        setting = replace(setting, sizes=3, budgets=BUDGETS[:1], method="global_alpha", scored=2_048)
    if options.seed is not None:
        score(setting, [options.seed])
        return Result((), ())
    return measure(setting)


if __name__ == "__main__":
    chosen = _options()
    asked = " ".join(f"--{name} {value}" for name, value in vars(chosen).items() if value is not None)
    command = f"{COMMAND} {asked}".rstrip()
    name = ", ".join(("elastic", *(part for part in (chosen.form, chosen.equal and f"equal {chosen.equal}") if part)))
    run_kept_benchmark(name, command, functools.partial(_run, chosen), ("torch", "transformers"))
