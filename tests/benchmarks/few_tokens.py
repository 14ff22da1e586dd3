"""What a chain of two anchors is worth after few tokens, by the recipe that trains it.

`python -m tests.benchmarks.few_tokens [--quick] [--json FILE] [--tokens 64k] [--seeds 3] [--seed N] [--ways "A;B"]
[--work FOLDER]`. Needs the package index (or what pip is configured with). SmolLM2-135M is ordered, an anchor of 102.6M
parameters is distilled from it and one of 76.1M from that, by the operations that a build runs, and each is scored on held-out
text. `elastic` scores the sizes between two such anchors.

A way is a recipe, and how layers were ranked before: "former" is what was the default before this benchmark; four changes are
there each alone, and together, and without the smaller batch, which takes more time for a token on several cores. Seconds are
CPU seconds of the trainings, of all cores. `since` compares the loop of when the former was the default with today's: in the
same time it trains on more than the 1.75 times the tokens, and the 1.47 times with batch 2, that are compared here.

What is finished stays in FOLDER, and trainings go on from their checkpoints, so a run that was stopped goes on; the seconds of
a training that was interrupted are those of its last part. `--seed N` does one seed and makes no table: two of them side by
side, with a thread each, are done sooner. `--quick` is one seed with 2,048 tokens and two ways.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from colbuild.arch import Shape
from colbuild.run.process.environment import prepare_process
from colbuild.units import parse_count
from tests.benchmarks.chain_parts import chain_shapes, heldout_loss, kept, structure_of
from tests.benchmarks.distill_inputs import Inputs, inputs_in
from tests.benchmarks.harness import Bar, Result, at_least, run_kept_benchmark
from tests.helpers.steps import run_step

COMMAND: Final = "python -m tests.benchmarks.few_tokens"
ENDS: Final = (102_600_000, 76_100_000)
SCORED: Final = 16_384


@dataclass(frozen=True)
class Way:
    """How a chain is trained.

    Attributes:
        recipe: Its recipe, beside tokens and seed.
        ranking: "removal", as `order` ranks layers, or "influence", by Block Influence, as it did before.
        longer: Tokens, as a multiple of those of the others.
    """

    recipe: Mapping[str, Any]
    ranking: str = "removal"
    longer: float = 1.0


def _recipe(*, batch: int = 4, text: float = 0.1, embeddings: str = "train") -> dict[str, Any]:
    return {
        "sequence": 256,
        "batch": batch,
        "embeddings": embeddings,
        "loss": {"kd_weight": round(1.0 - text, 3), "ce_weight": text},
    }


FORMER: Final = "former"
TOGETHER: Final = "all four"
NOW: Final = "all but the batch"
_TOGETHER: Final = _recipe(batch=2, text=0.4, embeddings="keep")
_NOW: Final = {**_TOGETHER, "batch": 4}
WAYS: Final[Mapping[str, Way]] = {
    FORMER: Way(_recipe(), "influence"),
    "layers by removal": Way(_recipe()),
    "embeddings kept": Way(_recipe(embeddings="keep"), "influence"),
    "text 0.4": Way(_recipe(text=0.4), "influence"),
    "batch 2": Way(_recipe(batch=2), "influence"),
    TOGETHER: Way(_TOGETHER),
    f"{TOGETHER}, 1.47 times the tokens": Way(_TOGETHER, longer=1.47),
    NOW: Way(_NOW),
    f"{NOW}, 1.75 times the tokens": Way(_NOW, longer=1.75),
}


@dataclass(frozen=True)
class Setting:
    """What is compared, and how thoroughly.

    Attributes:
        work: Where everything is kept.
        tokens: Of each anchor.
        seeds: How many.
        ways: Names among `WAYS`.
    """

    work: Path
    tokens: int
    seeds: int
    ways: tuple[str, ...] = field(default=tuple(WAYS))


class Bench:
    """The chains, made by a build's operations, and their scores."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self._inputs = inputs_in(setting.work / "inputs")

    def score(self, name: str, seed: int) -> dict[str, Any]:
        """Losses in nats per token from the smallest size to the largest, and the CPU seconds of both trainings; kept."""
        setting = self.setting
        kept = setting.work / "scores" / f"{name}, {setting.tokens} tokens, 2 sizes, seed {seed}.json"
        if not kept.exists():
            print(f"{kept.stem} …", file=sys.stderr, flush=True)
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(self._measured(name, seed)) + "\n", encoding="utf-8")
        found: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        return found

    def _measured(self, name: str, seed: int) -> dict[str, Any]:
        low, high = chain_shapes(structure_of(self._inputs.teacher), *ENDS, between=0)
        above, seconds, losses = self._teacher(WAYS[name].ranking), 0.0, []
        for shape in (high, low):
            above = self._trained(name, above, shape, seed)
            seconds += json.loads((above / "seconds.json").read_text(encoding="utf-8"))
            losses.append(heldout_loss(above, self._inputs.corpus, SCORED))
        return {"loss": losses[::-1], "seconds": seconds}

    def _teacher(self, ranking: str) -> Path:
        """The ordered AnsNet."""
        if ranking == "removal":
            return self._inputs.teacher
        return kept(
            self.setting.work / "inputs", "teacher-by-influence", lambda to, _: _order_by_influence(self._inputs, to)
        )

    def _trained(self, name: str, above: Path, shape: Shape, seed: int) -> Path:
        """The folder of a distilled anchor; what was interrupted goes on."""
        from colbuild.spec.model.recipe import Recipe

        tokens = round(self.setting.tokens * WAYS[name].longer)
        recipe = Recipe.model_validate({**WAYS[name].recipe, "tokens": tokens, "seed": seed}, strict=False)
        params = {"shape": asdict(shape), "split": "train", "recipe": recipe.model_dump(mode="json")}
        inputs = {"teacher": above, "corpus": self._inputs.corpus}

        def train(to: Path, partial: Path) -> None:
            before = os.times()
            run_step("distill", inputs, params, to, partial=partial, settings={"evaluate_every": 0.0})
            seconds = sum(os.times()[:4]) - sum(before[:4])
            (to / "seconds.json").write_text(json.dumps(round(seconds, 1)), encoding="utf-8")

        folder = self.setting.work / "anchors" / f"{name}-{tokens}-{seed}"
        return kept(folder, f"{shape.layers}-{shape.ffn}", train)


def _order_by_influence(inputs: Inputs, to: Path) -> None:
    from dataclasses import replace

    from colbuild.ops.shared.running_models import calibration, model_of
    from colbuild.progress import silent
    from colbuild.train.loop.devices import forward_type
    from colbuild.weights.files.checkpoint import load_checkpoint, save_checkpoint
    from colbuild.weights.prefix.importance import measure_importance

    whole = load_checkpoint(inputs.teacher)
    model = model_of(whole, forward_type())
    windows = calibration(inputs.corpus, "train", 8000, model)[:, :-1]
    influence = measure_importance(model, whole.structure, windows, silent).layers
    ranking = tuple(influence.argsort(descending=True, stable=True).tolist())
    save_checkpoint(replace(whole, lineage=replace(whole.ordered, ranking=ranking)), to, inputs.teacher)


# -- the table ----------------------------------------------------------------------------------------------------------


def measure(setting: Setting) -> Result:
    """Trains and scores what is not yet kept."""
    bench = Bench(setting)
    found = {name: [bench.score(name, seed) for seed in range(setting.seeds)] for name in setting.ways}
    rows = tuple(_row(setting, name, scores) for name, scores in found.items())
    return Result(rows, _bars(found) if FORMER in found else ())


def _row(setting: Setting, name: str, scores: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "way": name,
        "tokens": f"{round(setting.tokens * WAYS[name].longer):,}",
        "102.6M": round(_mean(scores, largest), 3),
        "of each seed": ", ".join(f"{largest(score['loss']):.3f}" for score in scores),
        "76.1M": round(_mean(scores, smallest), 3),
        "of each seed ": ", ".join(f"{smallest(score['loss']):.3f}" for score in scores),
        "CPU s": round(statistics.fmean(score["seconds"] for score in scores)),
    }


def _bars(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> tuple[Bar, ...]:
    """What the best way gains over the former default."""
    former = found[FORMER]

    def gain(of: Any) -> float:
        return _mean(former, of) - min(_mean(scores, of) for scores in found.values())

    return (
        at_least("the best way below the former default at 102.6M, nats", gain(largest), 0.10),
        at_least("the best way below the former default at 76.1M, nats", gain(smallest), 0.15),
    )


def largest(losses: Sequence[float]) -> float:
    """The loss of the larger anchor."""
    return losses[-1]


def smallest(losses: Sequence[float]) -> float:
    """The loss of the smaller anchor."""
    return losses[0]


def _mean(scores: Sequence[Mapping[str, Any]], of: Any) -> float:
    return statistics.fmean(of(score["loss"]) for score in scores)


# -- the command --------------------------------------------------------------------------------------------------------


def _options() -> argparse.Namespace:
    """Options of this benchmark alone; the others are left in `sys.argv`."""
    parser = argparse.ArgumentParser(prog=COMMAND, add_help=False)
    parser.add_argument("--tokens", type=parse_count, default=64_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--ways", type=lambda text: tuple(text.split(";")), default=tuple(WAYS))
    found, sys.argv[1:] = parser.parse_known_args()
    return found


def _run(options: argparse.Namespace, quick: bool, work: Path) -> Result:
    prepare_process()
    setting = Setting(work, options.tokens, options.seeds, options.ways)
    if quick:
        setting = Setting(work, 2_048, 1, (FORMER, NOW))
    if options.seed is not None:
        for name in setting.ways:
            Bench(setting).score(name, options.seed)
        return Result((), ())
    return measure(setting)


if __name__ == "__main__":
    chosen = _options()
    some = "" if chosen.ways == tuple(WAYS) else f" --ways '{';'.join(chosen.ways)}'"
    run_kept_benchmark("few_tokens", COMMAND + some, functools.partial(_run, chosen), ("torch", "transformers"))
