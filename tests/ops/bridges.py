"""The tiny family's AnsNet as a bridge starts from it: other vocabularies, texts in their tokens."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path
from typing import Any

from colbuild.arch import ARCHITECTURES, Shape, bridged, structure_to_json
from colbuild.weights.files.checkpoint import load_checkpoint
from tests.helpers.steps import run_step
from tests.helpers.tiny import CHAT_TEMPLATE, make_tiny_corpus
from tests.ops.family import Step, ansnet, carry_out, noting, ordered, packed, recipe_of, room

TEXT = {"format": "text", "text": "text", "limit": None, "heldout": 0.1}
ROWS = 340


def done(op: str, inputs: dict[str, Path], params: dict[str, Any], name: str) -> Path:
    """A step's result in a folder of its own."""
    output = room() / name
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir()
    run_step(op, inputs, json.loads(json.dumps(params)), output, note=noting(output))
    return output


@functools.cache
def raw() -> Path:
    """The tiny corpus as text."""
    return make_tiny_corpus(room() / "bridge-corpus.txt")


@functools.cache
def chatting() -> Path:
    """The AnsNet with special tokens that its chat is made of, and settings of generation."""
    folder = room() / "chatting"
    shutil.copytree(ansnet(), folder)
    path = folder / "tokenizer.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    for index, content in enumerate(("<|start|>", "<|stop|>", "<|unused|>")):
        one = {"id": 425 + index, "content": content, "special": True}
        facts["added_tokens"].append({**one, **dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)})
    path.write_text(json.dumps(facts), encoding="utf-8")
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings |= {"eos_token": "<|stop|>", "chat_template": f"<|start|>{CHAT_TEMPLATE}<|stop|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    generation = {"eos_token_id": [426, 0], "pad_token_id": 426, "temperature": 0.7}
    (folder / "generation_config.json").write_text(json.dumps(generation), encoding="utf-8")
    return folder


@functools.cache
def words() -> Path:
    """A vocabulary of the family's own, trained on its text."""
    return done("tokenizer", {"model": ansnet(), "raw": raw()}, {"rows": ROWS, "train": True, **TEXT}, "words")


@functools.cache
def read() -> Path:
    """The text in the family's tokens."""
    output = room() / "read"
    output.mkdir()
    run_step("corpus", {"raw": raw(), "tokenizer": words()}, TEXT, output)
    return output


def bridged_to(
    architecture: str = "llama",
    *,
    across: str | None = "alm",
    start: str = "transplant",
    recipe: Any = None,
    **lengths: int,
) -> Step:
    """(inputs, params) of a bridge; with `across` None it keeps the AnsNet's vocabulary."""
    teacher = load_checkpoint(ordered()).structure
    rows = teacher.shape.vocab if across is None else ROWS
    whole = bridged(teacher, ARCHITECTURES[architecture], rows, 128)
    structure = whole.at(Shape(**{**vars(whole.shape), **lengths}))
    values = recipe or recipe_of()
    loss = {key: value for key, value in values["loss"].items() if key != "across"}
    values = {**values, "loss": loss if across is None else {**loss, "across": across}}
    params = {
        "structure": structure_to_json(structure),
        "start": start,
        "recipe": values,
        "split": "train",
        "tokens": 512,
    }
    inputs = {"teacher": ordered(), "tokenizer": ansnet() if across is None else words(), "calibration": packed()}
    return {**inputs, "corpus": packed() if across is None else read()}, params


__all__ = ["carry_out"]
