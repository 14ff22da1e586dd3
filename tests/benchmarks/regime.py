"""Whether DesNets between two anchors hold once these are trained for long: by model, tokens and form of elastic steps.

`python -m tests.benchmarks.regime [--model stories] [--tokens 0.1M,1M,10M] [--form none,anchor,segment] [--seed 0] [--text 1M]
[--choose heldout] [--calibration 4096] [--train] [--quick] [--json FILE] [--work FOLDER]`. Two anchors are distilled by the
operations that a build runs, each on as many tokens; seven sizes between them are made without training, and scored on
held-out text. For each chain: every size's loss; how far it lies above the straight line between the anchors (by parameters),
below the larger anchor's subset, and above the middle of its two neighbours (a dent); what other strategies give; and how far
the weights of the two anchors are apart. Mixtures are chosen on `--calibration` tokens of held-out text, as in a build, and
scored on 8,192 others; `--choose train` has them chosen on text that the anchors were trained on.

`--model stories` and `stories-4k` need COLBUILD_BENCH_STORIES, a folder with stories15M in the form of Hugging Face, and write
`--text` tokens of text with it first; `smollm2` needs the package index. Recipes have the default values of a recipe, but for
`tokens`, `sequence: 256`, `batch` (8, SmolLM2's 4), `elastic`, and `epochs: allow`.

What is finished stays in FOLDER, a training that was interrupted goes on from its checkpoint, and each loss is kept as soon as
it is known: a run that was stopped goes on. `--train` trains the anchors and measures nothing. `--quick` is a thousandth of
the tokens at three sizes.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, Final

from colbuild.run.process.environment import prepare_process
from colbuild.units import parse_count
from tests.benchmarks.harness import Bar, Result, at_least, at_most, run_kept_benchmark, table
from tests.benchmarks.regime_chain import SUBSET, Chain, Effort
from tests.benchmarks.regime_lab import LABS, lab

COMMAND: Final = "python -m tests.benchmarks.regime"
FORMS: Final = ("none", "anchor", "segment")
USUAL: Final = "anchor"
BUDGETS: Final = {"stories": "0.1M,1M,10M", "stories-4k": "0.1M,1M,10M", "smollm2": "64k,640k,5M"}


def line(chain: Chain, size: int) -> float:
    """The loss at a size on the straight line between the anchors, by parameters."""
    low, own, high = (chain.sizes[place] for place in (0, size, -1))
    share = (own - low) / (high - low)
    last = len(chain.sizes) - 1
    return (1.0 - share) * chain.loss(0) + share * chain.loss(last)


def dent(chain: Chain, size: int) -> float:
    """How far a size lies above the straight line between its two neighbours."""
    before, own, after = (chain.sizes[place] for place in (size - 1, size, size + 1))
    share = (own - before) / (after - before)
    return chain.loss(size) - (1.0 - share) * chain.loss(size - 1) - share * chain.loss(size + 1)


def rows_of(chain: Chain) -> Iterator[dict[str, Any]]:
    """What was measured of a chain, a row for each quantity and a column for each size."""
    every, last = range(len(chain.sizes)), len(chain.sizes) - 1
    inner = range(1, last)

    def row(what: str, value: Callable[[int], float | None], weights: str = "") -> dict[str, Any]:
        found = (value(size) for size in every)
        sizes = {
            f"{count / 1e6:.2f}M": None if value is None else round(value, 3)
            for count, value in zip(chain.sizes, found, strict=True)
        }
        return {"tokens": chain.tokens, "elastic": chain.form, "what": what, **sizes, "weights": weights}

    def inside(value: Callable[[int], float]) -> Callable[[int], float | None]:
        return lambda size: value(size) if size in inner else None

    told = "; ".join(f"{group} {far:.3f} ({moved:.3f})" for group, (far, moved) in chain.distances().items())
    yield row("loss", chain.loss, f"anchors apart (larger from AnsNet): {told}")
    yield row("above the line", inside(lambda size: chain.loss(size) - line(chain, size)))
    yield row("below the subset", inside(lambda size: chain.loss(size, SUBSET) - chain.loss(size)))
    yield row("dent", inside(functools.partial(dent, chain)))
    some = [size for size in chain.effort.all_methods if size in inner]
    for method in chain.methods:
        tried = inner if method == SUBSET else some
        yield row(method, lambda size, m=method, t=tried: chain.loss(size, m) if size in t else None)  # type: ignore[misc]


def bars_of(chain: Chain) -> Iterator[Bar]:
    """What the issue asks of a chain."""
    inner = range(1, len(chain.sizes) - 1)
    told = f"{chain.lab.name}, {chain.tokens:,} tokens, {chain.form}"
    above = max(chain.loss(size) - line(chain, size) for size in inner)
    yield at_most(f"{told}: farthest above the line between the anchors, nats", above, 0.03)
    middle = len(chain.sizes) // 2
    below = chain.loss(middle, SUBSET) - chain.loss(middle)
    yield at_least(f"{told}: below the larger anchor's subset in the middle, nats", below, 0.05)
    yield at_most(f"{told}: deepest dent, nats", max(dent(chain, size) for size in inner), 0.03)


def _options() -> argparse.Namespace:
    """Options of this benchmark alone; the others are left in `sys.argv`."""
    parser = argparse.ArgumentParser(prog=COMMAND, add_help=False)
    parser.add_argument("--model", choices=LABS, default="stories")
    parser.add_argument("--tokens")
    parser.add_argument("--form", default=",".join(FORMS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--text", type=parse_count, default=1_000_000)
    parser.add_argument("--choose", choices=("train", "heldout"), default="heldout")
    parser.add_argument("--calibration", type=parse_count, default=Effort.calibration)
    parser.add_argument("--train", action="store_true")
    found, sys.argv[1:] = parser.parse_known_args()
    if odd := set(found.form.split(",")) - set(FORMS):
        parser.error(f"--form is some of {', '.join(FORMS)}, not {', '.join(odd)}")
    return found


def _run(options: argparse.Namespace, quick: bool, work: Path) -> Result:
    prepare_process()
    effort = Effort(between=3, scored=2_048, calibration=1_024, all_methods=(2,)) if quick else Effort()
    effort = replace(effort, choose=options.choose, **({} if quick else {"calibration": options.calibration}))
    budgets = [parse_count(text) for text in (options.tokens or BUDGETS[options.model]).split(",")]
    if quick and not options.tokens:
        budgets = [tokens // 1_000 for tokens in budgets[:2]]
    at = lab(options.model, work, 64_000 if quick else options.text)
    forms = options.form.split(",")
    # All forms at a budget before the next one: the smaller answers come first.
    chains = [Chain(at, tokens, form, options.seed, effort) for tokens, form in product(budgets, forms)]
    rows: list[dict[str, Any]] = []
    for chain in chains:
        print(f"{at.name} {chain.name} …", file=sys.stderr, flush=True)
        chain.train()
        if not options.train:
            found = list(rows_of(chain))
            print(table(found), file=sys.stderr, flush=True)
            rows += found
    if options.train:
        return Result((), ())
    largest = [chain for chain in chains if chain.tokens == max(budgets)]
    usual = next((chain for chain in largest if chain.form == USUAL), largest[0])
    return Result(tuple(rows), tuple(bars_of(usual)))


if __name__ == "__main__":
    chosen = _options()
    told = f"--model {chosen.model} --form {chosen.form} --seed {chosen.seed}"
    told += f" --tokens {chosen.tokens}" if chosen.tokens else ""
    told += f" --calibration {chosen.calibration}" if chosen.calibration != Effort.calibration else ""
    told += f" --choose {chosen.choose}" if chosen.choose != "heldout" else ""
    run_kept_benchmark(
        f"regime, {chosen.model}", f"{COMMAND} {told}", functools.partial(_run, chosen), ("torch", "transformers")
    )
