"""Chains of two anchors that the elastic benchmark compares, and the DesNets between them, made by a build's operations."""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from colbuild.arch import Shape, Structure
from tests.benchmarks.chain_parts import chain_shapes, kept, structure_of, unread_loss
from tests.benchmarks.distill_inputs import inputs_in
from tests.helpers.steps import run_step

ENDS: Final = (102_600_000, 76_100_000)
ELASTIC: Final = ("anchor", "segment")
BUDGETS: Final = ("tokens", "FLOPs")
BATCH: Final = 4
SEQUENCE: Final = 256
CALIBRATION: Final = 1_024


@dataclass(frozen=True)
class Setting:
    """What is compared, and how thoroughly.

    Attributes:
        work: Where inputs, anchors and scores are kept.
        seeds: How many.
        tokens: Each anchor's, where an equal budget of FLOPs does not say otherwise.
        sizes: How many, both ends included.
        budgets: What is held equal.
        forms: Of elastic steps, those that are compared with none.
        method: How sizes in between are made.
        scored: Held-out tokens that a model is scored on.
    """

    work: Path
    seeds: int
    tokens: int
    sizes: int = 9
    budgets: tuple[str, ...] = BUDGETS
    forms: tuple[str, ...] = ELASTIC
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
        return chain_shapes(self._ansnet(), *ENDS, self.setting.sizes - 2)

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
        larger, smaller = (self._trained(training) for training in self.anchors(way))
        losses, nested = [self._loss(smaller)], [0.0]
        for shape in self.shapes[1:-1]:
            with tempfile.TemporaryDirectory(dir=self.setting.work) as temporary:
                made = Path(temporary)
                self._interpolate(larger, smaller, shape, made)
                losses.append(self._loss(made))
                best = json.loads((made / "interpolation.json").read_text(encoding="utf-8"))["best"]
                nested.append(float(best["nested"]))
        return {"loss": [*losses, self._loss(larger)], "nested": [*nested, 0.0]}

    def forget(self, seed: int) -> None:
        """Removes the anchors of a seed that is done: each takes up to half a gigabyte."""
        shutil.rmtree(self._anchors(seed), ignore_errors=True)

    def _anchors(self, seed: int) -> Path:
        return self.setting.work / f"anchors-{self.setting.tokens}-{seed}"

    def _ansnet(self) -> Structure:
        return structure_of(self._inputs.teacher)

    def _flops(self, end: int, form: str) -> int:
        """FLOPs of a distillation for each token; random sub-shapes lie between the ends and count as their mean."""
        from colbuild.arch import forward_flops
        from colbuild.plan.shapes.route import distillation_flops
        from colbuild.spec.model.recipe import Elastic

        start, low, high = self._ansnet(), self.shapes[0], self.shapes[-1]
        teacher, own = (start.shape, high) if end == 0 else (high, low)
        if form == "none":
            below = forward_flops(start.at(own), SEQUENCE)
        else:
            below = Elastic(form=form).mean(*(forward_flops(start.at(shape), SEQUENCE) for shape in (high, low)))
        return distillation_flops(1, forward_flops(start.at(teacher), SEQUENCE), below)

    def _trained(self, training: Training) -> Path:
        """The folder of a distilled anchor; what was interrupted goes on."""
        from colbuild.spec.model.recipe import Recipe

        elastic = None if training.form == "none" else {"form": training.form}
        values = {"sequence": SEQUENCE, "batch": BATCH, "tokens": training.tokens, "seed": training.seed}
        recipe = Recipe.model_validate({**values, "elastic": elastic}, strict=False)
        low, high = self.shapes[0], self.shapes[-1]
        params: dict[str, Any] = {"shape": asdict((high, low)[training.end]), "split": "train"}
        params["recipe"] = recipe.model_dump(mode="json")
        if training.form == "anchor":
            params["interval"] = asdict(low)

        def train(to: Path, partial: Path) -> None:
            teacher = self._inputs.teacher if training.teacher is None else self._trained(training.teacher)
            settings = {"compile": "never", "evaluate_every": 0.0}
            inputs = {"teacher": teacher, "corpus": self._inputs.corpus}
            run_step("distill", inputs, params, to, partial=partial, settings=settings)

        return kept(self._anchors(training.seed), training.name, train)

    def _interpolate(self, larger: Path, smaller: Path, shape: Shape, made: Path) -> None:

        inputs = {"larger": larger, "smaller": smaller, "corpus": self._inputs.corpus}
        params = {"shape": asdict(shape), "method": self.setting.method, "tokens": CALIBRATION, "split": "heldout"}
        run_step("interpolate", inputs, params, made)

    def _loss(self, folder: Path) -> float:
        return unread_loss(folder, self._inputs.corpus, self.setting.scored, CALIBRATION)
