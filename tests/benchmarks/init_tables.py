"""The tables of `init_quality`: held-out loss of models that were cut from a larger one, or mixed from two, and not trained."""

from __future__ import annotations

import functools
import json
import shutil
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from colbuild.arch import Shape
from tests.benchmarks.chain_parts import unread_loss
from tests.benchmarks.init_models import Models, Pair
from tests.helpers.steps import run_step

if TYPE_CHECKING:
    from colbuild.weights.files.checkpoint import Checkpoint

IMPORTANCE: Final = "by importance"
REFITTED: Final = "by importance, refitted"
RANDOM: Final = "random"
SPACED: Final = "evenly spaced"

SUBSET: Final = "larger anchor's subset"
EXPANDED: Final = "smaller anchor, expanded by zeros"
PUBLISHED: Final = "zero fill, alpha by distance (as published)"
ZERO: Final = "zero fill, best alpha"
COPY: Final = "copies, best alpha"
QUARTER: Final = "donor fill, alpha 0.25"
HALF: Final = "donor fill, alpha 0.5"
THREE_QUARTERS: Final = "donor fill, alpha 0.75"
GLOBAL: Final = "donor fill, best alpha"
LAYERS: Final = "an alpha for each layer"
GROUPS: Final = "an alpha for each group (the default)"
GROUPS_REFITTED: Final = "an alpha for each group, refitted"

STRATEGIES: Final[Mapping[str, Mapping[str, Any]]] = {
    SUBSET: {"method": "subset"},
    EXPANDED: {"method": "expand", "fill": "zero"},
    PUBLISHED: {"method": "global_alpha", "fill": "zero", "alpha": "distance"},
    ZERO: {"method": "global_alpha", "fill": "zero"},
    COPY: {"method": "global_alpha", "fill": "copy"},
    QUARTER: {"method": "global_alpha", "alpha": 0.25},
    HALF: {"method": "global_alpha", "alpha": 0.5},
    THREE_QUARTERS: {"method": "global_alpha", "alpha": 0.75},
    GLOBAL: {"method": "global_alpha"},
    LAYERS: {"method": "layer_alpha"},
    GROUPS: {"method": "group_alpha"},
    GROUPS_REFITTED: {"method": "group_alpha", "refit": "auto"},
}
"""What a DesNet's `interpolate` says."""


@dataclass(frozen=True)
class Made:
    """A model, and its losses on held-out text in nats per token, one for each seed where something is drawn by lot."""

    of: str
    what: str
    by: str
    losses: tuple[float, ...]

    @property
    def loss(self) -> float:
        """The mean."""
        return statistics.fmean(self.losses)

    def row(self) -> dict[str, Any]:
        """A row of the table."""
        spread = f"{min(self.losses):.3f} to {max(self.losses):.3f}" if len(self.losses) > 1 else "–"
        return {
            "model": self.of,
            "made": self.what,
            "by": self.by,
            "held-out loss": round(self.loss, 3),
            "of each seed": spread,
        }


class Tables:
    """Makes and scores models; a score that is in the folder is not measured again."""

    def __init__(self, models: Models, scores: Path) -> None:
        self._models, self._scores = models, scores
        scores.mkdir(exist_ok=True)

    def cut(self, name: str, what: str, **lengths: int) -> list[Made]:
        """An AnsNet's subset of some lengths: by importance, by lot and evenly spaced."""
        from colbuild.weights.files.checkpoint import load_checkpoint, save_checkpoint
        from colbuild.weights.prefix.controls import random_subset, uniform_subset
        from colbuild.weights.prefix.subset import subset

        ansnet = self._models.ansnet(name)
        whole = load_checkpoint(ansnet)
        shape = replace(whole.structure.shape, **lengths)
        seeds = range(self._models.effort.seeds)
        ways: dict[str, list[tuple[str, Callable[[], Checkpoint]]]] = {
            IMPORTANCE: [("subset", lambda: subset(whole, shape))],
            SPACED: [("uniform", lambda: uniform_subset(whole, shape))],
            RANDOM: [(f"random {seed}", functools.partial(random_subset, whole, shape, seed)) for seed in seeds],
        }

        def loss(key: str, cut: Callable[[], Checkpoint]) -> float:
            return self.score(name, f"{key} {_told(shape)}", lambda to: save_checkpoint(cut(), to, ansnet))

        found = [Made(name, what, by, tuple(loss(*way) for way in each)) for by, each in ways.items()]
        if shape.ffn < whole.structure.shape.ffn:
            found.append(Made(name, what, REFITTED, (self._refitted(name, ansnet, shape),)))
        return found

    def _refitted(self, name: str, ansnet: Path, shape: Shape) -> float:
        """The loss of a subset whose FFNs were fitted again, kept where other text said so."""
        from colbuild.ops.shared.refitting import refitted
        from colbuild.ops.step_run import StepRun
        from colbuild.plan.steps.interpolate import InterpolateParams
        from colbuild.weights.files.checkpoint import load_checkpoint, save_checkpoint
        from colbuild.weights.prefix.subset import subset

        params = InterpolateParams(
            shape, "subset", tokens=self._models.calibration(name), split="heldout", fitted_split="train"
        )
        inputs = {"larger": ansnet, "corpus": self._models.corpus(name)}

        def make(to: Path) -> None:
            found, _ = refitted(StepRun(inputs, to), params, subset(load_checkpoint(ansnet), shape))
            save_checkpoint(found, to, ansnet)

        return self.score(name, f"refit {_told(shape)}", make)

    def whole(self, name: str, what: str, model: Path) -> Made:
        """A model as it is."""
        return Made(name, what, "–", (self._loss(name, model),))

    def mixed(self, name: str, what: str, pair: Pair, strategies: Sequence[str]) -> list[Made]:
        """A DesNet between two anchors by some of the strategies."""
        return [
            Made(name, what, strategy, (self._interpolated(name, pair, STRATEGIES[strategy]),))
            for strategy in strategies
        ]

    def _interpolated(self, name: str, pair: Pair, how: Mapping[str, Any]) -> float:
        """The loss of what an `interpolate` step makes."""
        from colbuild.spec.model.mixing import Interpolate

        asked = Interpolate.model_validate({"tokens": self._models.calibration(name), **how}, strict=False)
        params = {"shape": asdict(pair.between), **asked.params(), "split": "heldout", "fitted_split": "train"}
        inputs = {"larger": pair.larger, "smaller": pair.smaller, "corpus": self._models.corpus(name)}

        def make(to: Path) -> None:
            run_step("interpolate", inputs, params, to)

        told = " ".join(f"{key}={value}" for key, value in asked.params().items())
        return self.score(name, f"{pair.larger.name} {pair.smaller.name} {_told(pair.between)} {told}", make)

    def _loss(self, name: str, model: Path) -> float:
        def copy(to: Path) -> None:
            shutil.copytree(model, to, dirs_exist_ok=True)

        return self.score(name, model.name, copy)

    def score(self, name: str, key: str, make: Callable[[Path], None]) -> float:
        """The held-out loss of what `make` puts into a folder."""
        chosen, scored = self._models.calibration(name), self._models.effort.heldout
        kept = self._scores / f"{name} {key} {chosen} {scored}, before the last quarter.json"
        if not kept.exists():
            with tempfile.TemporaryDirectory(dir=self._scores) as folder:
                make(Path(folder))
                loss = unread_loss(Path(folder), self._models.corpus(name), scored, chosen)
            kept.write_text(json.dumps(loss) + "\n", encoding="utf-8")
        return float(json.loads(kept.read_text(encoding="utf-8")))


def _told(shape: Shape) -> str:
    return f"{shape.layers}x{shape.hidden}x{shape.ffn}x{shape.kv_heads}"
