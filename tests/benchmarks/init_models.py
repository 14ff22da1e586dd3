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

from colbuild.arch import Shape, Structure, parameters, read_structure
from colbuild.arch.solving import solve_between, solve_down
from colbuild.run.process.environment import prepare_process
from tests.benchmarks.distill_inputs import inputs_in
from tests.helpers.steps import run_step

SMALL: Final[Mapping[str, Mapping[str, Any]]] = {
    "gpt2": {"n_layer": 6, "n_embd": 128, "n_head": 4, "n_inner": 512, "n_positions": 512},
    "qwen3": {
        "num_hidden_layers": 6,
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
    },
}
"""config.json of the models that are trained here; 1.3 million parameters."""


@dataclass(frozen=True)
class Effort:
    """How thoroughly is measured.

    Attributes:
        heldout: Held-out tokens that a model is scored on.
        calibration: Tokens that mixtures of SmolLM2's anchors are scored on; those of small models on four times as many.
        anchor: Tokens that each anchor of SmolLM2 is distilled on, those that differ in layers and FFN.
        wide: Tokens of those that differ in the width of their FFN only.
        small: Tokens that a small model is trained on; its anchors are distilled on a 32nd of them.
        seeds: How many, where something is drawn by lot.
        sizes: How many in the sweep, both anchors included.
    """

    heldout: int = 4_096
    calibration: int = 1_024
    anchor: int = 81_920
    wide: int = 40_960
    small: int = 2_097_152
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

    def calibration(self, name: str) -> int:
        """Tokens that mixtures are scored on."""
        return self.effort.calibration * (1 if name == "llama" else 4)

    def corpus(self, name: str) -> Path:
        """The text that goes with a model."""
        return self._inputs.corpus if name == "llama" else self._made("corpus-512", self._pack)

    def unlike(self, name: str) -> Pair:
        """Anchors that differ in layers and FFN, as `params` would have them, with a DesNet in the middle."""
        start = structure_of(self.ansnet(name))
        whole = parameters(start)
        sizes = (102_600_000, 76_100_000) if name == "llama" else (whole * 3 // 4, whole // 2)
        high = solve_down(start, start.shape, sizes[0])
        low = solve_down(start, high, sizes[1])
        return Pair(*self._chain(name, high, low, self.effort.anchor), solve_between(start, high, low, sum(sizes) // 2))

    def widths(self, name: str) -> Pair:
        """Anchors that differ in the width of their FFN only, with a DesNet in the middle."""
        shape = structure_of(self.ansnet(name)).shape
        high, middle, low = (replace(shape, ffn=shape.ffn * part // 12) for part in (10, 8, 6))
        return Pair(*self._chain(name, high, low, self.effort.wide), middle)

    def _chain(self, name: str, high: Shape, low: Shape, of_llama: int) -> tuple[Path, Path]:
        tokens = of_llama if name == "llama" else self.effort.small // 32
        larger = self._distilled(name, self.ansnet(name), high, tokens)
        return larger, self._distilled(name, larger, low, tokens)

    def _distilled(self, name: str, teacher: Path, shape: Shape, tokens: int) -> Path:
        values = {"tokens": tokens, "sequence": 256, "batch": 4 if name == "llama" else 16}
        start = structure_of(teacher).shape
        made = f"{name}-{tokens}-{start.layers}x{start.ffn}-{shape.layers}x{shape.ffn}"
        return self._made(made, lambda to: self._train(teacher, self.corpus(name), shape, values, to))

    def _trained(self, name: str) -> Path:
        """A small model after its pretraining."""
        start = self._made(f"{name}-new", lambda new: _new_model(name, new))
        tokens = self.effort.small
        return self._made(f"{name}-{tokens}", lambda to: _pretrain(start, self.corpus(name), tokens, to))

    def _train(self, teacher: Path, corpus: Path, shape: Shape, values: Mapping[str, Any], to: Path) -> None:
        from colbuild.spec.model.recipe import Recipe

        recipe = Recipe.model_validate({**values, "elastic": None}, strict=False).model_dump(mode="json")
        params = {"shape": asdict(shape), "split": "train", "recipe": recipe}
        settings = {"compile": "never", "evaluate_every": 0.0, "epochs": "allow"}
        run_step("distill", {"teacher": teacher, "corpus": corpus}, params, to, settings=settings)

    def _order(self, model: Path, corpus: Path, to: Path) -> None:

        run_step("order", {"model": model, "corpus": corpus}, {"split": "train", "tokens": 16_384}, to)

    def _pack(self, to: Path) -> None:
        from tests.helpers.tiny import make_tiny_tokenizer

        tokenizer = self._made("tokenizer-512", make_tiny_tokenizer)
        raw = next((self._folder / "inputs" / "downloads").rglob("enwik8.gz"))
        params = {"format": "mediawiki", "text": "text", "limit": 12_000_000, "heldout": 0.02}
        run_step("corpus", {"raw": raw, "tokenizer": tokenizer}, params, to)

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


def _pretrain(start: Path, corpus: Path, tokens: int, to: Path) -> None:
    """Trains a new model on text alone, every token once."""
    import torch
    from torch.nn import functional
    from transformers import AutoModelForCausalLM

    from colbuild.ops.shared.running_models import calibration

    torch.manual_seed(0)
    shutil.copytree(start, to, dirs_exist_ok=True)
    model = AutoModelForCausalLM.from_pretrained(to).train()
    windows = calibration(corpus, "train", tokens, model)
    batches = windows[torch.randperm(len(windows))].split(8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=len(batches), pct_start=0.1)
    for batch in batches:
        logits = model(batch[:, :-1]).logits
        loss = functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.save_pretrained(to)
