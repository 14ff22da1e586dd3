"""One chain of two anchors of `regime`: it is trained, its DesNets are made and scored, and its anchors' weights compared."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from colbuild.arch import Shape, parameters
from tests.benchmarks.chain_parts import kept, unread_loss
from tests.benchmarks.regime_lab import Lab
from tests.helpers.steps import run_step

if TYPE_CHECKING:
    import torch

    from colbuild.weights.files.checkpoint import Checkpoint

DEFAULT: Final = "group_alpha"
SUBSET: Final = "subset"
SEARCHED: Final = ("global_alpha", "layer_alpha", "nested")
GROUPS: Final[Mapping[str, str]] = {"embed": "embedding", "self_attn": "attention", "mlp": "ffn", "norm": "norms"}


@dataclass(frozen=True)
class Effort:
    """How thoroughly is measured.

    Attributes:
        between: Sizes between the two anchors.
        scored: Held-out tokens that a model is scored on.
        calibration: Tokens that mixtures are scored on.
        all_methods: Sizes, counted from the smallest, at which every strategy is tried and not the default alone.
        choose: The split of the corpus that mixtures are scored on: "heldout", as in a build, or "train", what the anchors
            were trained on.
    """

    between: int = 7
    scored: int = 8_192
    calibration: int = 4_096
    all_methods: tuple[int, ...] = (2, 4, 6)
    choose: str = "heldout"


class Chain:
    """Two anchors, trained on as many tokens each, and what is between them. What was measured is kept in `scores/`."""

    def __init__(self, lab: Lab, tokens: int, form: str, seed: int, effort: Effort) -> None:
        self.lab, self.tokens, self.form, self.seed, self.effort = lab, tokens, form, seed, effort
        self.shapes = lab.shapes(effort.between)
        self.sizes = tuple(parameters(lab.structure.at(shape)) for shape in self.shapes)
        self.name = f"{form}-{tokens}-{seed}"
        chosen = f"-{effort.choose}, last quarter"
        self._scores = (
            lab.folder
            / "scores"
            / lab.corpus.name
            / f"{self.name}-{effort.between}-{effort.scored}-{effort.calibration}{chosen}.json"
        )
        self._known: dict[str, Any] = {}
        if self._scores.exists():
            self._known = json.loads(self._scores.read_text(encoding="utf-8"))

    @property
    def methods(self) -> tuple[str, ...]:
        """The strategies that can be tried."""
        return (SUBSET, *(name for name in SEARCHED if name != "nested" or self.form == "segment"))

    def loss(self, size: int, method: str = DEFAULT) -> float:
        """The held-out loss of a size, in nats per token; of an anchor whatever the method."""
        if size in (0, len(self.shapes) - 1):
            return self._measured(f"anchor {size}", lambda: self._loss(self.larger if size else self.smaller))
        return self._measured(f"{method} {size}", lambda: self._mixed(size, method))

    def ansnet_loss(self) -> float:
        """The AnsNet's own."""
        return self._measured("ansnet", lambda: self._loss(self.lab.ansnet))

    def distances(self) -> dict[str, tuple[float, float]]:
        """Group of tensors -> how far the smaller anchor is from the larger one's prefix, and this one from the AnsNet's.

        Both as shares of the length of the AnsNet's prefix. The larger anchor's prefix is also what the smaller one started
        from, so the first number is how far that moved.
        """
        found: dict[str, tuple[float, float]] = self._measured("distances", self._distances)
        return found

    def train(self) -> None:
        """Trains both anchors, as far as they are not."""
        assert self.smaller.exists()

    # -- the anchors --------------------------------------------------------------------------------------------------

    @property
    def larger(self) -> Path:
        """The larger anchor; without elastic steps and with segments it is the same."""
        form = "anchor" if self.form == "anchor" else "none"
        return self._trained(f"larger-{form}", self.lab.ansnet, len(self.shapes) - 1, form)

    @property
    def smaller(self) -> Path:
        """The smaller anchor."""
        form = "segment" if self.form == "segment" else "none"
        return self._trained(f"smaller-{self.form}", self.larger, 0, form)

    def _trained(self, name: str, teacher: Path, end: int, form: str) -> Path:
        from colbuild.spec.model.recipe import Recipe

        values = {"sequence": self.lab.sequence, "batch": self.lab.batch, "tokens": self.tokens, "seed": self.seed}
        recipe = Recipe.model_validate({**values, "elastic": None if form == "none" else {"form": form}}, strict=False)
        params: dict[str, Any] = {"shape": asdict(self.shapes[end]), "split": "train"}
        params["recipe"] = recipe.model_dump(mode="json")
        if form == "anchor":
            params["interval"] = asdict(self.shapes[0])
        settings = {"compile": "never", "evaluate_every": 0.0, "epochs": "allow"}
        inputs = {"teacher": teacher, "corpus": self.lab.corpus}

        def train(to: Path, partial: Path) -> None:
            noted: dict[str, Any] = {}
            run_step("distill", inputs, params, to, partial=partial, settings=settings, note=noted.update)
            (to / "record.json").write_text(json.dumps(noted, default=str), encoding="utf-8")

        # The corpus is part of the name: more text makes another anchor.
        folder = self.lab.folder / "anchors" / self.lab.corpus.name
        return kept(folder, f"{name}-{self.tokens}-{self.seed}", train)

    # -- what is between ----------------------------------------------------------------------------------------------

    def _mixed(self, size: int, method: str) -> float:
        inputs = {"larger": self.larger, "smaller": self.smaller, "corpus": self.lab.corpus}
        params: dict[str, Any] = {"shape": asdict(self.shapes[size]), "method": method}
        if method != SUBSET:
            params |= {"tokens": self.effort.calibration, "split": self.effort.choose}
        with tempfile.TemporaryDirectory(dir=self.lab.folder) as made:
            run_step("interpolate", inputs, params, Path(made))
            found = json.loads((Path(made) / "interpolation.json").read_text(encoding="utf-8"))
            self._keep(f"mixture {method} {size}", found["best"])
            return self._loss(Path(made))

    def _loss(self, folder: Path) -> float:
        return unread_loss(folder, self.lab.corpus, self.effort.scored, self.effort.calibration)

    def _distances(self) -> dict[str, tuple[float, float]]:
        from colbuild.weights.files.checkpoint import load_checkpoint
        from colbuild.weights.prefix.subset import subset

        low: Shape = self.shapes[0]
        start, larger = (subset(load_checkpoint(folder), low) for folder in (self.lab.ansnet, self.larger))
        return apart(start, larger, load_checkpoint(self.smaller))

    def _measured(self, key: str, measure: Callable[[], Any]) -> Any:
        if key not in self._known:
            self._keep(key, measure())
        return self._known[key]

    def _keep(self, key: str, value: Any) -> None:
        self._known[key] = value
        self._scores.parent.mkdir(parents=True, exist_ok=True)
        draft = self._scores.with_suffix(".draft")
        draft.write_text(json.dumps(self._known, indent=1) + "\n", encoding="utf-8")
        draft.replace(self._scores)


def apart(start: Checkpoint, larger: Checkpoint, smaller: Checkpoint) -> dict[str, tuple[float, float]]:
    """Group of tensors -> the distance of `smaller` and `larger`, and of `larger` and `start`; shares of the length of `start`.

    All three have one shape.
    """
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    for name, tensor in start.tensors.items():
        group = next((told for part, told in GROUPS.items() if part in name), "others")
        squares = (
            _square(tensor, None),
            _square(larger.tensors[name], smaller.tensors[name]),
            _square(larger.tensors[name], tensor),
        )
        for of in (group, "all"):
            sums[of] = [before + more for before, more in zip(sums[of], squares, strict=True)]
    return {
        group: ((between / whole) ** 0.5, (moved / whole) ** 0.5) for group, (whole, between, moved) in sums.items()
    }


def _square(one: torch.Tensor, other: torch.Tensor | None) -> float:
    difference = one.double() if other is None else one.double() - other.double()
    return float(difference.square().sum())
