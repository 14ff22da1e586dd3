"""What a DesNet is worth before it is trained: cut by importance or by lot, mixed from two anchors by each strategy.

    python -m tests.benchmarks.init_quality [--quick] [--json FILE] [--work FOLDER]

SmolLM2-135M, ordered on 8,000 tokens of Wikipedia, is cut along each axis. Two pairs of anchors are distilled from it, one that
differs in layers and FFN, on 81,920 tokens each, and one that differs in the width of its FFN only, on 40,960; a DesNet in the
middle of each is made by every strategy; then nine sizes along the first pair. The same for small models of GPT-2's and Qwen3's
kind that are trained here. Losses are of held-out text, in nats per token. Nothing is trained after it was cut or mixed.

Last, an anchor with a head of its own is turned and put in another order at random, aligned again, and mixed with itself.

What is finished stays in the work folder. `--quick` trains less, scores on fewer tokens, and leaves SmolLM2's anchors out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

from colbuild.arch import parameters
from colbuild.arch.solving import solve_between
from tests.benchmarks.harness import Bar, Result, at_least, at_most, run_kept_benchmark
from tests.benchmarks.init_align import ALIGNED, scrambled
from tests.benchmarks.init_models import SMALL, Effort, Models, Pair, structure_of
from tests.benchmarks.init_tables import (
    EXPANDED,
    GLOBAL,
    GROUPS,
    HALF,
    IMPORTANCE,
    QUARTER,
    RANDOM,
    SPACED,
    STRATEGIES,
    SUBSET,
    THREE_QUARTERS,
    Made,
    Tables,
)

CUTS: Final[Mapping[str, Mapping[str, Mapping[str, int]]]] = {
    "llama": {
        "FFN 1536 -> 768": {"ffn": 768},
        "FFN 1536 -> 1024": {"ffn": 1024},
        "layers 30 -> 24": {"layers": 24},
        "hidden 576 -> 504": {"hidden": 504},
    },
    "gpt2": {"FFN 512 -> 256": {"ffn": 256}, "layers 6 -> 5": {"layers": 5}},
    "qwen3": {"FFN 384 -> 192": {"ffn": 192}, "layers 6 -> 5": {"layers": 5}, "hidden 128 -> 112": {"hidden": 112}},
}
UNLIKE: Final = "layers and FFN between two anchors"
WIDTHS: Final = "FFN between two anchors"
SWEEP: Final = "sweep"

Found = dict[tuple[str, str, str], Made]
"""(model, what is made, by what) -> it."""


def measure(quick: bool, folder: Path) -> Result:
    """All rows and bars."""
    effort = Effort(heldout=2_048, calibration=512, small=131_072, seeds=1, sizes=3) if quick else Effort()
    models = Models(folder, effort)
    tables = Tables(models, folder / "scores")
    names = ("llama", *SMALL)
    made = [one for name in names for one in _whole_and_cut(tables, models, name)]
    pairs = SMALL if quick else names
    for name in pairs:
        made += tables.mixed(name, UNLIKE, models.unlike(name), list(STRATEGIES))
        made += tables.mixed(name, WIDTHS, models.widths(name), list(STRATEGIES))
    sweep = [] if quick else list(_sweep(tables, models, effort.sizes))
    apart = [] if quick else list(scrambled(tables, models))
    found = {(one.of, one.what, one.by): one for one in made}
    bars = [bar for name in names for bar in _cut_bars(found, name)]
    bars += [bar for name in pairs for bar in _pair_bars(found, name)]
    rows = tuple(one.row() for one in [*made, *sweep, *apart])
    return Result(rows, (*bars, *_sweep_bars(sweep), *_align_bars(apart)))


def _whole_and_cut(tables: Tables, models: Models, name: str) -> list[Made]:
    cuts = [one for what, lengths in CUTS[name].items() for one in tables.cut(name, what, **lengths)]
    return [tables.whole(name, "the AnsNet", models.ansnet(name)), *cuts]


def _sweep(tables: Tables, models: Models, sizes: int) -> Iterator[Made]:
    """Sizes from the smaller to the larger anchor, both included, by the default strategy."""
    pair, start = models.unlike("llama"), structure_of(models.ansnet("llama"))
    high, low = structure_of(pair.larger), structure_of(pair.smaller)
    yield tables.whole("llama", _size(parameters(low)), pair.smaller)
    for place in range(1, sizes - 1):
        wanted = parameters(low) + (parameters(high) - parameters(low)) * place // (sizes - 1)
        shape = solve_between(start, high.shape, low.shape, wanted)
        between = Pair(pair.larger, pair.smaller, shape)
        yield from tables.mixed("llama", _size(parameters(start.at(shape))), between, [GROUPS])
    yield tables.whole("llama", _size(parameters(high)), pair.larger)


def _size(count: int) -> str:
    return f"{SWEEP}: {count / 1e6:.1f}M"


def _cut_bars(found: Found, name: str) -> Iterator[Bar]:
    def loss(what: str, by: str) -> float:
        return found[name, what, by].loss

    if name != "llama":
        for what in CUTS[name]:
            gain = loss(what, RANDOM) - loss(what, IMPORTANCE)
            yield at_least(f"{name}, {what}: by importance below random, nats", gain, 0.0)
        return
    ffn, layers, hidden = "FFN 1536 -> 768", "layers 30 -> 24", "hidden 576 -> 504"
    yield at_most(f"{ffn} by importance, nats", loss(ffn, IMPORTANCE), 5.5)
    yield at_least(f"{ffn}: by importance below random, nats", loss(ffn, RANDOM) - loss(ffn, IMPORTANCE), 4.0)
    yield at_most(f"{layers} by importance, nats", loss(layers, IMPORTANCE), 4.9)
    gain = loss(layers, SPACED) - loss(layers, IMPORTANCE)
    yield at_least(f"{layers}: by importance below evenly spaced, nats", gain, 0.8)
    yield at_most(f"{hidden} by importance, nats", loss(hidden, IMPORTANCE), 4.7)


def _pair_bars(found: Found, name: str) -> Iterator[Bar]:
    # How much is asked of SmolLM2; small models have less to lose than that in all.
    margin = 0.05 if name == "llama" else 0.0
    for what in (UNLIKE, WIDTHS):
        losses = {by: found[name, what, by].loss for by in STRATEGIES}
        endpoints = min(losses[SUBSET], losses[EXPANDED])
        told = f"{name}, {what}"
        yield at_least(
            f"{told}: donor fill with one alpha below both endpoints, nats", endpoints - losses[GLOBAL], margin
        )
        if what == WIDTHS:
            gain = losses[GLOBAL] - losses[GROUPS]
            yield at_least(f"{told}: an alpha for each group below global_alpha, nats", gain, margin)
            # Which also tries the smaller anchor's parts with the larger one's beside them left as they are.
            line = min(losses[by] for by in (SUBSET, QUARTER, HALF, THREE_QUARTERS, EXPANDED))
            gain = line - losses[GROUPS]
            yield at_least(f"{told}: an alpha for each group below the best point of a line, nats", gain, margin)
        others = min(losses[GLOBAL], losses[SUBSET])
        yield at_most(
            f"{told}: an alpha for each group above one alpha or the subset, nats", losses[GROUPS] - others, 0.0
        )


def _sweep_bars(sweep: Sequence[Made]) -> Iterator[Bar]:
    if not sweep:
        return
    dents = [
        middle.loss - (before.loss + after.loss) / 2 for (before, middle), (_, after) in pairwise(list(pairwise(sweep)))
    ]
    yield at_most(f"{len(sweep)} sizes between two anchors: deepest dent in the curve, nats", max(dents), 0.03)


def _align_bars(apart: Sequence[Made]) -> Iterator[Bar]:
    by = {one.by: one.loss for one in apart}
    if by:
        # The anchor computes the same in both coordinates, so that both ends have one loss.
        yield at_most(
            "align: procrustes, barrier halfway to a turned and reordered copy, nats", by[ALIGNED] - by["–"], 0.01
        )


if __name__ == "__main__":
    run_kept_benchmark("init_quality", "python -m tests.benchmarks.init_quality", measure, ("torch", "transformers"))
