"""Elastic steps or none: which gives the best family of DesNets for the same tokens, and for the same FLOPs.

`python -m tests.benchmarks.elastic [--quick] [--json FILE] [--seeds 3] [--tokens 80k] [--work FOLDER]`. Needs the package index
(or what pip is configured with). Two anchors of SmolLM2-135M are distilled, of 102.6M and 76.1M parameters, by the operations
that a build runs; nine sizes from one to the other, both included, are made of them by `group_alpha` on 2,000 tokens of the
training text, and scored on held-out text. With equal FLOPs the elastic step gets as many tokens as its chain may cost in all.

What is finished stays in FOLDER (`scores.json`, and the anchors of the seed at hand), so that a run that was stopped goes on.
Three seeds at 80k tokens take about three hours on 2 cores. `--quick` is one seed with a fortieth of the tokens, at three
sizes and equal tokens only.
"""

from __future__ import annotations

import argparse
import functools
import json
import shutil
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from colbuild.arch import Shape, Structure
from colbuild.run.environment import prepare_process
from colbuild.units import parse_count
from tests.benchmarks.distill_inputs import inputs_in
from tests.benchmarks.harness import Bar, Result, at_least, at_most, run_kept_benchmark

COMMAND = "python -m tests.benchmarks.elastic"
ENDS: Final = (102_600_000, 76_100_000)
ELASTIC: Final = ("anchor", "segment")
BUDGETS: Final = ("tokens", "FLOPs")
BATCH: Final = 4
SEQUENCE: Final = 256
CALIBRATION: Final = 2_000


@dataclass(frozen=True)
class Setting:
    """What is compared, and how thoroughly.

    Attributes:
        work: Where inputs, anchors and scores are kept.
        seeds: How many.
        tokens: Each anchor's, where an equal budget of FLOPs does not say otherwise.
        sizes: How many, both ends included.
        budgets: What is held equal.
        method: How sizes in between are made.
        scored: Held-out tokens that a model is scored on.
    """

    work: Path
    seeds: int
    tokens: int
    sizes: int = 9
    budgets: tuple[str, ...] = BUDGETS
    method: str = "group_alpha"
    scored: int = 16_384


@dataclass(frozen=True)
class Way:
    """One way to train the two anchors: a form of elastic steps, what is held equal, and the seed."""

    form: str
    budget: str
    seed: int


@dataclass(frozen=True)
class Training:
    """One distillation.

    Attributes:
        teacher: The training that made whom it follows; None for the AnsNet.
        end: Which of `ENDS` it makes.
        form: How it trains sub-shapes too; "none" where it does not.
        tokens: On how many.
        seed: Of its recipe.
    """

    teacher: Training | None
    end: int
    form: str
    tokens: int
    seed: int

    @property
    def name(self) -> str:
        """A name for a folder."""
        own = f"{self.end}-{self.form}-{self.tokens}-{self.seed}"
        return own if self.teacher is None else f"{self.teacher.name}+{own}"


class Bench:
    """Where anchors are trained and DesNets are made, by the operations that a build runs."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self._inputs = inputs_in(setting.work / "inputs")

    @functools.cached_property
    def shapes(self) -> tuple[Shape, ...]:
        """The shapes that are compared, from the smallest on: what `params:` gives, of sizes that are evenly spaced."""
        from colbuild.arch.solve import solve_between, solve_down

        start, steps = self._ansnet(), self.setting.sizes - 1
        high = solve_down(start, start.shape, ENDS[0])
        low = solve_down(start, high, ENDS[1])
        sizes = [ENDS[1] + (ENDS[0] - ENDS[1]) * place // steps for place in range(1, steps)]
        return (low, *(solve_between(start, high, low, size) for size in sizes), high)

    @functools.cached_property
    def sizes(self) -> tuple[int, ...]:
        """How many parameters they have."""
        from colbuild.arch import parameters

        return tuple(parameters(self._ansnet().at(shape)) for shape in self.shapes)

    def anchors(self, way: Way) -> tuple[Training, Training]:
        """The trainings of the larger and the smaller anchor."""
        tokens = self.setting.tokens
        upper, lower = ("anchor", "none") if way.form == "anchor" else ("none", way.form)
        counts = [
            tokens if way.budget == "tokens" else tokens * self._flops(end, "none") // self._flops(end, form)
            for end, form in enumerate((upper, lower))
        ]
        larger = Training(None, 0, upper, counts[0], way.seed)
        return larger, Training(larger, 1, lower, counts[1], way.seed)

    def flops(self, way: Way) -> int:
        """What both trainings cost."""
        return sum(training.tokens * self._flops(training.end, training.form) for training in self.anchors(way))

    def scores(self, way: Way) -> dict[str, list[float]]:
        """Loss on held-out text in nats per token at each size, and whether the nested student's prefix was part of it."""
        smaller_training = self.anchors(way)[1]
        smaller, larger = self._trained(smaller_training), self._trained(self.anchors(way)[0])
        losses, nested = [self._loss(smaller)], [0.0]
        for shape in self.shapes[1:-1]:
            with tempfile.TemporaryDirectory(dir=self.setting.work) as temporary:
                made = Path(temporary)
                self._interpolate(larger, smaller, shape, made)
                losses.append(self._loss(made))
                best = json.loads((made / "interpolation.json").read_text(encoding="utf-8"))["best"]
                nested.append(float(best["nested"]))
        return {"loss": [*losses, self._loss(larger)], "nested": [*nested, 0.0]}

    def forget(self) -> None:
        """Removes the anchors of a seed that is done: each takes up to half a gigabyte."""
        shutil.rmtree(self.setting.work / "anchors", ignore_errors=True)

    def _ansnet(self) -> Structure:
        from colbuild.arch import read_structure

        return read_structure(json.loads((self._inputs.teacher / "config.json").read_text(encoding="utf-8")))

    def _flops(self, end: int, form: str) -> int:
        """FLOPs of a distillation for each token; random sub-shapes lie between the ends and count as their mean."""
        from colbuild.arch import forward_flops
        from colbuild.plan.route import distillation_flops

        start, low, high = self._ansnet(), self.shapes[0], self.shapes[-1]
        teacher, own = (start.shape, high) if end == 0 else (high, low)
        passed = [own] if form == "none" else [high, low]
        below = sum(forward_flops(start.at(shape), SEQUENCE) for shape in passed) // len(passed)
        return distillation_flops(1, forward_flops(start.at(teacher), SEQUENCE), below)

    def _trained(self, training: Training) -> Path:
        """The folder of a distilled anchor; what was interrupted goes on."""
        from colbuild.ops import distill
        from colbuild.ops.step import StepRun
        from colbuild.spec.recipe import Recipe

        folder = self.setting.work / "anchors"
        made, draft, partial = (folder / f"{training.name}{suffix}" for suffix in ("", ".draft", ".partial"))
        if made.exists():
            return made
        teacher = self._inputs.teacher if training.teacher is None else self._trained(training.teacher)
        elastic = None if training.form == "none" else {"form": training.form}
        values = {"sequence": SEQUENCE, "batch": BATCH, "tokens": training.tokens, "seed": training.seed}
        recipe = Recipe.model_validate({**values, "elastic": elastic}, strict=False)
        low, high = self.shapes[0], self.shapes[-1]
        params: dict[str, Any] = {"shape": asdict((high, low)[training.end]), "split": "train"}
        params["recipe"] = recipe.model_dump(mode="json")
        if training.form == "anchor":
            params["interval"] = asdict(low)
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        settings = {"compile": "never", "evaluate_every": 0.0}
        inputs = {"teacher": teacher, "corpus": self._inputs.corpus}
        distill.run(StepRun(inputs, params, draft, partial=partial, settings=settings))
        draft.rename(made)
        shutil.rmtree(partial, ignore_errors=True)
        return made

    def _interpolate(self, larger: Path, smaller: Path, shape: Shape, made: Path) -> None:
        from colbuild.ops import interpolate
        from colbuild.ops.step import StepRun

        inputs = {"larger": larger, "smaller": smaller, "corpus": self._inputs.corpus}
        params = {"shape": asdict(shape), "method": self.setting.method, "tokens": CALIBRATION, "split": "train"}
        interpolate.run(StepRun(inputs, params, made))

    def _loss(self, folder: Path) -> float:
        import torch

        from colbuild.ops.models import calibration, model_of
        from colbuild.train.measure import mean_loss
        from colbuild.weights.checkpoint import load_checkpoint

        model = model_of(load_checkpoint(folder), torch.bfloat16)
        return mean_loss(model, calibration(self._inputs.corpus, "heldout", self.setting.scored, model))


# -- the comparison ---------------------------------------------------------------------------------------------------


def measure(setting: Setting) -> Result:
    """Trains, mixes and scores what is not yet in `scores.json`."""
    prepare_process()
    bench = Bench(setting)
    path = setting.work / "scores.json"
    scores = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for seed in range(setting.seeds):
        for form, budget in _compared(setting):
            key = _key(setting, form, budget, seed)
            if key not in scores:
                print(f"{key} …", file=sys.stderr, flush=True)
                scores[key] = bench.scores(Way(form, budget, seed))
                path.write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")
        bench.forget()
    rows = tuple(_row(bench, form, budget, scores) for form, budget in _compared(setting))
    return Result(rows, _bars(setting, scores))


def _compared(setting: Setting) -> list[tuple[str, str]]:
    """(form, budget): the plain chain is what the others get as many tokens, or FLOPs, as."""
    return [("none", "tokens"), *((form, budget) for budget in setting.budgets for form in ELASTIC)]


def _key(setting: Setting, form: str, budget: str, seed: int) -> str:
    return f"{setting.tokens} tokens, {setting.sizes} sizes, {form}, equal {budget}, seed {seed}"


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

    found = {form: gains(form) for form in ELASTIC}
    best = max(found, key=lambda form: statistics.fmean(found[form][1:-1]))
    return (
        at_least(f"'{best}' below no elastic steps in between, nats", statistics.fmean(found[best][1:-1]), 0.03),
        at_most(f"'{best}' above no elastic steps at its worse end, nats", -min(found[best][0], found[best][-1]), 0.05),
    )


def _options() -> argparse.Namespace:
    """Options of this benchmark alone; the others are left in `sys.argv`."""
    parser = argparse.ArgumentParser(prog=COMMAND, add_help=False)
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--tokens", type=parse_count)
    found, sys.argv[1:] = parser.parse_known_args()
    return found


def _run(options: argparse.Namespace, quick: bool, work: Path) -> Result:
    seeds, tokens = options.seeds or (1 if quick else 3), options.tokens or (2_048 if quick else 80_000)
    setting = Setting(work, seeds, tokens)
    if quick:
        setting = replace(setting, sizes=3, budgets=BUDGETS[:1], method="global_alpha", scored=2_048)
    return measure(setting)


if __name__ == "__main__":
    chosen = _options()
    run_kept_benchmark("elastic", COMMAND, functools.partial(_run, chosen), ("torch", "transformers"))
