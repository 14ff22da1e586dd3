"""The laboratories of `regime`: an ordered model that chains begin with, its text, and the sizes of the two anchors.

`stories` is stories15M, a llama of 15.2M parameters that tells children's stories, with text that it wrote itself (the
operation of `data.generate`, a piece of 256,000 tokens for each seed); `stories-4k` the same behind a bridge with a vocabulary
of 4,096; `smollm2` is SmolLM2-135M with Wikipedia. The anchors have 70% and 45% of the AnsNet's body, which is all but its
embedding: 102.6M and 76.1M parameters of SmolLM2.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from colbuild.arch import ARCHITECTURES, Shape, Structure, bridged, parameters, structure_to_json
from tests.benchmarks.chain_parts import chain_shapes, kept, structure_of
from tests.benchmarks.distill_inputs import CORPUS, inputs_in
from tests.helpers.steps import run_step

STORIES: Final = "COLBUILD_BENCH_STORIES"
"""The variable that names the folder of stories15M as Hugging Face has it."""

SEQUENCE: Final = 256
"""As many as stories15M has positions."""

HELDOUT: Final = 0.08

_SMALL: Final = 4_096
_PIECE: Final = 256_000
_BODY: Final = (0.70, 0.45)
_SETTINGS: Final = {"evaluate_every": 0.0, "epochs": "allow"}


@dataclass(frozen=True)
class Lab:
    """What chains begin with.

    Attributes:
        name: As `--model` calls it.
        folder: Where all of it is kept.
        ansnet: The ordered AnsNet, or bridge.
        corpus: Packed text, with a held-out split.
        sequence: Tokens in a training sequence.
        batch: Sequences in a step.
    """

    name: str
    folder: Path
    ansnet: Path
    corpus: Path
    sequence: int
    batch: int

    @property
    def structure(self) -> Structure:
        """The AnsNet's."""
        return structure_of(self.ansnet)

    def shapes(self, between: int) -> tuple[Shape, ...]:
        """From the smaller anchor to the larger one, both included: evenly spaced sizes, as `params:` solves them."""
        start = self.structure
        body = parameters(start) - start.shape.vocab * start.shape.hidden
        large, small = (parameters(start) - round(body * (1.0 - share)) for share in _BODY)
        return chain_shapes(start, large, small, between)


def lab(name: str, work: Path, written: int) -> Lab:
    """A laboratory in a folder, made where it is missing; what was interrupted goes on.

    Args:
        name: "stories", "stories-4k" or "smollm2".
        work: The folder.
        written: Tokens of text that stories15M writes.
    """
    return _LABS[name](work, written)


def _stories(work: Path, written: int) -> Lab:
    folder = work / "stories"
    ansnet, text = _story_teller(folder), _stories_told(folder, written)
    corpus = kept(folder, f"corpus-{written}", lambda to, _: _pack(ansnet, text, to))
    ordered = kept(folder, f"ordered-{written}", lambda to, _: _order(ansnet, corpus, to))
    return Lab("stories", folder, ordered, corpus, SEQUENCE, 8)


def _small_stories(work: Path, written: int) -> Lab:
    from colbuild.spec.model.recipe import Recipe

    large, folder = _stories(work, written), work / "stories-4k"
    ansnet, text = _story_teller(large.folder), _stories_told(large.folder, written)
    form = {"format": "jsonl", "text": "text", "limit": None, "heldout": HELDOUT}
    tokenizer = kept(
        folder,
        f"tokenizer-{written}",
        lambda to, _: run_step(
            "tokenizer", {"model": ansnet, "raw": text}, {"rows": _SMALL, "train": True, **form}, to
        ),
    )
    corpus = kept(folder, f"corpus-{written}", lambda to, _: _pack(tokenizer, text, to))
    # As many tokens as there are of text; the rest as in recipes/bridge.yaml.
    values = {"sequence": SEQUENCE, "batch": 8, "tokens": written, "optimizer": {"lr": 5e-4}, "loss": {"across": "alm"}}
    params = {
        "structure": structure_to_json(bridged(large.structure, ARCHITECTURES["llama"], _SMALL, None)),
        "start": "transplant",
        "recipe": Recipe.model_validate(values, strict=False).model_dump(mode="json"),
        "split": "train",
        "tokens": 8_192,
    }
    inputs = {"teacher": large.ansnet, "tokenizer": tokenizer, "corpus": corpus, "calibration": large.corpus}
    bridge = kept(
        folder,
        f"bridge-{written}",
        lambda to, partial: run_step("bridge", inputs, params, to, partial=partial, settings=_SETTINGS),
    )
    ordered = kept(folder, f"ordered-{written}", lambda to, _: _order(bridge, corpus, to))
    return Lab("stories-4k", folder, ordered, corpus, SEQUENCE, 8)


def _smollm2(work: Path, _: int) -> Lab:
    from colbuild.fetch.fetching import fetch

    inputs, folder = work / "inputs", work / "smollm2"
    teacher = inputs_in(inputs).teacher
    form = {"format": "mediawiki", "text": "text", "limit": 24_000_000, "heldout": 0.02}

    def pack(to: Path, _: Path) -> None:
        raw = fetch(CORPUS, root=inputs, downloads=inputs / "downloads").path
        run_step("corpus", {"raw": raw, "tokenizer": teacher}, form, to)

    return Lab("smollm2", folder, teacher, kept(folder, "corpus", pack), 256, 4)


_LABS: Final[dict[str, Callable[[Path, int], Lab]]] = {
    "stories": _stories,
    "stories-4k": _small_stories,
    "smollm2": _smollm2,
}
LABS: Final = tuple(_LABS)


def story_teller_files(folder: Path) -> Path:
    """stories15M in the form of Hugging Face, whose stories end with the token that the next one begins with."""

    def make(to: Path, _: Path) -> None:
        given = os.environ.get(STORIES)
        if given is None:
            raise SystemExit(f"set {STORIES} to a folder with stories15M in the form of Hugging Face")
        shutil.copytree(given, to, dirs_exist_ok=True)
        for name, key, end in (
            ("tokenizer_config.json", "eos_token", "<s>"),
            ("config.json", "eos_token_id", 1),
            ("generation_config.json", "eos_token_id", 1),
        ):
            values: dict[str, Any] = json.loads((to / name).read_text(encoding="utf-8"))
            (to / name).write_text(json.dumps({**values, key: end}), encoding="utf-8")

    return kept(folder, "raw", make)


def _story_teller(folder: Path) -> Path:
    """stories15M as the step `source` leaves it."""
    return kept(folder, "ansnet", lambda to, _: run_step("source", {"raw": story_teller_files(folder)}, {}, to))


def _stories_told(folder: Path, written: int) -> Path:
    """A folder of pieces of text, each written from its own seed, so that more text begins with the same."""
    ansnet, pieces = _story_teller(folder), []
    for seed, start in enumerate(range(0, written, _PIECE)):
        tokens = min(_PIECE, written - start)
        name = f"{seed:02}" if tokens == _PIECE else f"{seed:02}-{tokens}"
        params = {"tokens": tokens, "temperature": 1.0, "prompts": [], "length": SEQUENCE - 1, "seed": seed}

        def write(to: Path, partial: Path, params: dict[str, Any] = params) -> None:
            run_step("generate", {"model": ansnet}, params, to, partial=partial)

        pieces.append(kept(folder / "text", name, write) / "texts.jsonl")

    def together(to: Path, _: Path) -> None:
        for index, piece in enumerate(pieces):
            shutil.copyfile(piece, to / f"{index:02}.jsonl")

    return kept(folder, f"text-{written}", together)


def _pack(tokenizer: Path, text: Path, to: Path) -> None:
    params = {"format": "jsonl", "text": "text", "limit": None, "heldout": HELDOUT}
    run_step("corpus", {"raw": text, "tokenizer": tokenizer}, params, to)


def _order(model: Path, corpus: Path, to: Path) -> None:
    run_step("order", {"model": model, "corpus": corpus}, {"split": "train", "tokens": 8_192}, to)
