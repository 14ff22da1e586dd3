"""What distilling is worth: SmolLM2-135M with an FFN of 512 instead of 1,536, by each loss, at equal tokens.

    python -m tests.benchmarks.quality [--quick] [--json FILE] [--work FOLDER]

The student starts as the nested subset of its teacher and learns from 12,288 tokens of Wikipedia, in 12 steps of 4 x 256; the
recipe is the default one but for what a row names. All see the same text for a seed, which decides its order. Loss and
KL(teacher || model) are of 16,000 tokens of held-out text, in nats per token: the mean over three seeds, the lowest and the
highest. Last, the teacher is distilled into itself by the divergence alone, which must leave it as it is.

Each run is a process of its own, and what is finished in the work folder is not run again. `--quick` takes a third of the
training, one seed and a quarter of the held-out text.
"""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.distill_inputs import inputs_in, shape_of
from tests.benchmarks.distill_loops import Batches, Workshop, recipe
from tests.benchmarks.harness import Result, at_least, at_most, run_kept_benchmark

FFN: Final = 512
FORWARD: Final = "forward_kl"
CACHED: Final = "forward_kl, cached teacher"
RECIPES: Final[Mapping[str, Mapping[str, Any]]] = {
    FORWARD: {"loss": {"type": "forward_kl"}},
    "reverse_kl": {"loss": {"type": "reverse_kl"}},
    "skew_kl": {"loss": {"type": "skew_kl"}},
    CACHED: {"loss": {"type": "forward_kl"}, "teacher": "cached"},
}
_ALONE: Final = {"loss": {"type": "forward_kl", "kd_weight": 1.0, "ce_weight": 0.0}}


@dataclass(frozen=True)
class Quality:
    """Nats per token on held-out text."""

    loss: float
    kl: float


@dataclass(frozen=True)
class Study:
    """One size of the comparison, whose results lie in a folder of their own.

    Attributes:
        workshop: Where it runs.
        folder: Where its results lie.
        batches: What each training reads.
        heldout: How many held-out tokens a model is measured on.
    """

    workshop: Workshop
    folder: Path
    batches: Batches
    heldout: int

    def trained(self, name: str, seed: int) -> Quality:
        """How the student does after a training; the training is run unless its result is there."""
        scores = self.folder / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"
        if not scores.exists():
            model = scores.with_name(f"{scores.name}.model")
            shape = {**shape_of(self.workshop.inputs.teacher), "ffn": FFN}
            self._distill(shape, RECIPES[name], seed, model)
            self.quality(model, scores)
            shutil.rmtree(model)
        return _read(scores)

    def quality(self, model: Path, scores: Path) -> Quality:
        """How a model does; measured unless the scores are there."""
        self.workshop.score(model, self.heldout, scores)
        return _read(scores)

    def start(self) -> Quality:
        """How the student does before it is trained."""
        from colbuild.arch import Shape
        from colbuild.weights.files.checkpoint import load_checkpoint, save_checkpoint
        from colbuild.weights.prefix.subset import subset

        scores, model = self.folder / "start", self.folder / "start.model"
        if not scores.exists():
            teacher = self.workshop.inputs.teacher
            shape = Shape(**{**shape_of(teacher), "ffn": FFN})
            model.mkdir(exist_ok=True)
            save_checkpoint(subset(load_checkpoint(teacher), shape), model, teacher)
            self.quality(model, scores)
            shutil.rmtree(model)
        return _read(scores)

    def itself(self) -> tuple[float, float]:
        """The teacher as its own student: (largest loss of a step, largest change of a weight)."""
        from colbuild.weights.files.checkpoint import load_checkpoint

        model, teacher = self.folder / "itself.model", self.workshop.inputs.teacher
        self._distill(shape_of(teacher), _ALONE, 0, model)
        curve = json.loads((model / "noted.json").read_text(encoding="utf-8"))["training"]["curve"]
        before, after = load_checkpoint(teacher).tensors, load_checkpoint(model).tensors
        changes = [(after[name].double() - weight.double()).abs().max().item() for name, weight in before.items()]
        return max(abs(reading["loss"]) for reading in curve), max(changes)

    def _distill(self, shape: Mapping[str, Any], values: Mapping[str, Any], seed: int, output: Path) -> None:
        workshop, batches = self.workshop, self.batches
        inputs = {"teacher": workshop.inputs.teacher, "corpus": workshop.inputs.corpus}
        if values.get("teacher") == "cached":
            inputs["lessons"] = workshop.lessons(batches, seed)
        params = {"shape": shape, "recipe": recipe(batches, seed, values), "split": "train"}
        workshop.operate("distill", inputs, params, output, {"compile": "never", "evaluate_every": 0.0})


def measure(quick: bool, folder: Path) -> Result:
    """All rows and bars."""
    batches = Batches(steps=12, batch=4, sequence=256)
    if quick:
        batches = replace(batches, steps=4)
    results = folder / f"quality-{batches.steps}"
    results.mkdir(exist_ok=True)
    study = Study(Workshop(inputs_in(folder / "inputs"), folder), results, batches, 4000 if quick else 16_000)
    seeds = range(1 if quick else 3)
    start = study.start()
    found = {name: [study.trained(name, seed) for seed in seeds] for name in RECIPES}
    loss, change = study.itself()
    rows = [_row("the start: a subset of the teacher", [start], start)]
    rows += [_row(name, qualities, start) for name, qualities in found.items()]
    apart = [abs(cached.loss - online.loss) for cached, online in zip(found[CACHED], found[FORWARD], strict=True)]
    tokens = batches.steps * batches.tokens
    gains = [start.loss - quality.loss for quality in found[FORWARD]]
    return Result(
        tuple(rows),
        (
            at_least(f"gain over the start in nats, {tokens:,} tokens, the seed that gains least", min(gains), 0.25),
            at_most("held-out loss with a cached teacher, difference in nats, mean", statistics.mean(apart), 0.02),
            at_most("the teacher as its own student: largest loss of a step", loss, 1e-6),
            at_most("the teacher as its own student: largest change of a weight", change, 0.0),
        ),
    )


def _read(scores: Path) -> Quality:
    found = json.loads((scores / "metrics.json").read_text(encoding="utf-8"))
    return Quality(found["loss"], found["kl"])


def _row(what: str, qualities: Sequence[Quality], start: Quality) -> dict[str, Any]:
    losses = [quality.loss for quality in qualities]
    loss = statistics.mean(losses)
    return {
        "loss of the recipe": what,
        "held-out loss": round(loss, 3),
        "lowest and highest": f"{min(losses):.3f} and {max(losses):.3f}",
        "gain over the start": round(start.loss - loss, 3),
        "KL to the teacher": round(statistics.mean(quality.kl for quality in qualities), 3),
        "seeds": len(qualities),
    }


if __name__ == "__main__":
    run_kept_benchmark("quality", "python -m tests.benchmarks.quality", measure, ("torch", "transformers"))
