"""What the tables of `init_quality` are made of: ordered AnsNets of three architectures, and short chains of two anchors.

SmolLM2-135M is real. Models of GPT-2's and Qwen3's kind cannot be had from a package index, so small ones are trained on the
same text, read by a tokenizer of 512 entries: little, but enough that their channels, heads and layers differ in what they do.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from colbuild.arch import Shape, Structure, read_structure
from colbuild.arch.solve import solve_between, solve_down
from colbuild.run.environment import prepare_process
from tests.benchmarks.distill_inputs import inputs_in

SMALL: Final[Mapping[str, Mapping[str, Any]]] = {
    "gpt2": {"n_layer": 8, "n_embd": 192, "n_head": 6, "n_inner": 768, "n_positions": 512},
    "qwen3": {
        "num_hidden_layers": 8,
        "hidden_size": 192,
        "intermediate_size": 512,
        "num_attention_heads": 6,
        "num_key_value_heads": 3,
        "head_dim": 32,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
    },
}
"""config.json of the models that are trained here; 3 to 4 million parameters."""


@dataclass(frozen=True)
class Effort:
    """How thoroughly is measured.

    Attributes:
        heldout: Held-out tokens that a model is scored on.
        calibration: Tokens that mixtures are scored on.
        anchor: Tokens that each anchor of SmolLM2 is distilled on.
        small: Tokens that a small model is trained on; its anchors are distilled on an eighth of them.
        seeds: How many, where something is drawn by lot.
        sizes: How many in the sweep, both anchors included.
    """

    heldout: int = 4_096
    calibration: int = 1_024
    anchor: int = 16_384
    small: int = 262_144
    seeds: int = 3
    sizes: int = 9


@dataclass(frozen=True)
class Pair:
    """Two anchors, and the shape of a DesNet between them."""

    larger: Path
    smaller: Path
    between: Shape


class Models:
    """Models in a folder, made where they are missing by the operations that a build runs."""

    def __init__(self, folder: Path, effort: Effort) -> None:
        prepare_process()
        self.effort, self._folder = effort, folder
        self._inputs = inputs_in(folder / "inputs")

    def ansnet(self, name: str) -> Path:
        """An ordered AnsNet: "llama" is SmolLM2-135M, the others are small and trained here."""
        if name == "llama":
            return self._inputs.teacher
        return self._made(f"{name}-ordered", lambda to: self._order(self._trained(name), self.corpus(name), to))

    def corpus(self, name: str) -> Path:
        """The text that goes with a model."""
        return self._inputs.corpus if name == "llama" else self._made("corpus-512", self._pack)

    def unlike(self, name: str) -> Pair:
        """Anchors that differ in layers and FFN, as `params` would have them, with a DesNet in the middle."""
        start = structure_of(self.ansnet(name))
        sizes = (102_600_000, 76_100_000) if name == "llama" else (2_400_000, 1_500_000)
        high = solve_down(start, start.shape, sizes[0])
        low = solve_down(start, high, sizes[1])
        return Pair(*self._chain(name, high, low), solve_between(start, high, low, sum(sizes) // 2))

    def widths(self, name: str) -> Pair:
        """Anchors that differ in the width of their FFN only, with a DesNet in the middle."""
        shape = structure_of(self.ansnet(name)).shape
        high, middle, low = (replace(shape, ffn=shape.ffn * part // 12) for part in (10, 8, 6))
        return Pair(*self._chain(name, high, low), middle)

    def _chain(self, name: str, high: Shape, low: Shape) -> tuple[Path, Path]:
        larger = self._distilled(name, self.ansnet(name), high)
        return larger, self._distilled(name, larger, low)

    def _distilled(self, name: str, teacher: Path, shape: Shape) -> Path:
        tokens = self.effort.anchor if name == "llama" else self.effort.small // 8
        values = {"tokens": tokens, "sequence": 256, "batch": 4 if name == "llama" else 16}
        start = structure_of(teacher).shape
        made = f"{name}-{tokens}-{start.layers}x{start.ffn}-{shape.layers}x{shape.ffn}"
        return self._made(made, lambda to: self._train(teacher, self.corpus(name), shape, values, to))

    def _trained(self, name: str) -> Path:
        """A small model after its pretraining: cross-entropy alone, as a distillation from itself as it was made."""
        values = {
            "tokens": self.effort.small,
            "sequence": 256,
            "batch": 16,
            "loss": {"kd_weight": 0.0, "ce_weight": 1.0, "hidden_weight": 0.0},
            "optimizer": {"lr": 2e-3},
        }

        def train(to: Path) -> None:
            start = self._made(f"{name}-new", lambda new: _new_model(name, new))
            ordered = self._made(f"{name}-new-ordered", lambda new: self._order(start, self.corpus(name), new))
            self._train(ordered, self.corpus(name), structure_of(ordered).shape, values, to)

        return self._made(f"{name}-{self.effort.small}", train)

    def _train(self, teacher: Path, corpus: Path, shape: Shape, values: Mapping[str, Any], to: Path) -> None:
        from colbuild.ops import distill
        from colbuild.ops.step import StepRun
        from colbuild.spec.recipe import Recipe

        recipe = Recipe.model_validate({**values, "elastic": None}, strict=False).model_dump(mode="json")
        params = {"shape": asdict(shape), "split": "train", "recipe": recipe}
        settings = {"compile": "never", "evaluate_every": 0.0, "epochs": "allow"}
        distill.run(StepRun({"teacher": teacher, "corpus": corpus}, params, to, settings=settings))

    def _order(self, model: Path, corpus: Path, to: Path) -> None:
        from colbuild.ops import order
        from colbuild.ops.step import StepRun

        order.run(StepRun({"model": model, "corpus": corpus}, {"split": "train", "tokens": 16_384}, to))

    def _pack(self, to: Path) -> None:
        from colbuild.ops import corpus
        from colbuild.ops.step import StepRun
        from tests.helpers.tiny import make_tiny_tokenizer

        tokenizer = self._made("tokenizer-512", make_tiny_tokenizer)
        raw = next((self._folder / "inputs" / "downloads").rglob("enwik8.gz"))
        params = {"format": "mediawiki", "text": "text", "limit": 4_000_000, "heldout": 0.02}
        corpus.run(StepRun({"raw": raw, "tokenizer": tokenizer}, params, to))

    def _made(self, name: str, make: Callable[[Path], None]) -> Path:
        """A folder, made if it is missing; what was interrupted is made anew."""
        made, draft = self._folder / name, self._folder / f"{name}.draft"
        if not made.exists():
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
            make(draft)
            draft.rename(made)
        return made


def structure_of(model: Path) -> Structure:
    """What a model folder's configuration says."""
    return read_structure(json.loads((model / "config.json").read_text(encoding="utf-8")))


def _new_model(name: str, to: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from tests.helpers.tiny import VOCABULARY, make_tiny_tokenizer

    torch.manual_seed(0)
    config = AutoConfig.for_model(name, vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=0, **SMALL[name])
    make_tiny_tokenizer(to)
    AutoModelForCausalLM.from_config(config).save_pretrained(to)
