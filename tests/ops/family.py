"""A tiny family, made once for a test run: AnsNet, corpus, ordered AnsNet, two anchors."""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from colbuild.hashing import TreeEntry, scan_tree
from colbuild.progress import Progress, Report, silent
from colbuild.spec.model.mixing import Interpolate
from colbuild.spec.model.recipe import Recipe
from colbuild.weights.files.checkpoint import load_checkpoint
from tests.helpers.steps import run_step
from tests.helpers.tiny import make_tiny_corpus, make_tiny_model

Step = tuple[dict[str, Path], dict[str, Any]]
"""A step's inputs and params."""


@functools.cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="colbuild-family-")


def room() -> Path:
    """A folder for this test run, gone at its end."""
    return Path(_temporary().name)


def carry_out(op: str, inputs: Mapping[str, Path], params: Mapping[str, Any], report: Report = silent) -> Path:
    """Runs a step into a fresh folder, as the executor does; its parameters pass through JSON, as in the store."""
    output = Path(tempfile.mkdtemp(prefix=f"{op}-", dir=room()))
    run_step(op, inputs, json.loads(json.dumps(params)), output, report, note=noting(output))
    return output


def noting(output: Path) -> Callable[[Mapping[str, Any]], None]:
    """Keeps what a step notes of its run, for `noted_by`."""
    noted: dict[str, Any] = {}

    def note(values: Mapping[str, Any]) -> None:
        noted.update(json.loads(json.dumps(values)))
        output.with_suffix(".noted").write_text(json.dumps(noted), encoding="utf-8")

    return note


def noted_by(output: Path) -> dict[str, Any]:
    """What the step that made a folder noted of its run."""
    found: dict[str, Any] = json.loads(output.with_suffix(".noted").read_text(encoding="utf-8"))
    return found


def interpolation_of(output: Path) -> dict[str, Any]:
    """What an interpolation notes of its run: the mixture that was taken, and every candidate, with their losses."""
    found: dict[str, Any] = noted_by(output)["interpolation"]
    return found


def training_of(output: Path) -> dict[str, Any]:
    """What a training tells: beside its weights, and in the record of its run."""
    found: dict[str, Any] = json.loads((output / "training.json").read_text(encoding="utf-8"))
    return found | noted_by(output)["training"]


def twice(op: str, inputs: Mapping[str, Path], params: Mapping[str, Any]) -> tuple[tuple[TreeEntry, ...], ...]:
    """The trees that two runs of the same step leave."""
    return scan_tree(carry_out(op, inputs, params)), scan_tree(carry_out(op, inputs, params))


def progress_of(op: str, inputs: Mapping[str, Path], params: Mapping[str, Any]) -> list[Progress]:
    """What a step tells while it runs."""
    told: list[Progress] = []
    carry_out(op, inputs, params, told.append)
    return told


@functools.cache
def ansnet() -> Path:
    """A random llama in float32, not ordered."""
    return make_tiny_model(room() / "ansnet", layers=4, hidden=48, ffn=96, heads=6, kv_heads=3)


@functools.cache
def packed() -> Path:
    """The tiny corpus, packed with the AnsNet's tokenizer, a tenth held out."""
    raw, output = make_tiny_corpus(room() / "corpus.txt"), room() / "corpus"
    output.mkdir()
    params = {"format": "text", "text": "text", "limit": None, "heldout": 0.1}
    run_step("corpus", {"raw": raw, "tokenizer": ansnet()}, params, output)
    return output


@functools.cache
def ordered() -> Path:
    """The AnsNet, ordered."""
    return carry_out("order", {"model": ansnet(), "corpus": packed()}, {"tokens": 1024, "split": "train"})


def changed(folder: Path, name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Path:
    """A copy of a model with one of its tensors replaced."""
    copy = Path(tempfile.mkdtemp(dir=room())) / folder.name
    shutil.copytree(folder, copy)
    weights = load_file(copy / "model.safetensors")
    weights[name] = change(weights[name])
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    return copy


def shape_of(folder: Path, **lengths: int) -> dict[str, int]:
    """A model's shape as a step's parameter, with some lengths replaced."""
    return asdict(replace(load_checkpoint(folder).structure.shape, **lengths))


def recipe_of(**changes: Any) -> dict[str, Any]:
    """A recipe as a step's parameter: four short steps in float32."""
    settings = {"tokens": 512, "sequence": 32, "batch": 4, "precision": "fp32", "seed": 3} | changes
    return Recipe.model_validate(settings, strict=False).model_dump(mode="json")


def distilled(teacher: Path, recipe: Mapping[str, Any] | None = None, **lengths: int) -> Step:
    """(inputs, params) of a distillation."""
    params = {"shape": shape_of(teacher, **lengths), "recipe": recipe or recipe_of(), "split": "train"}
    return {"teacher": teacher, "corpus": packed()}, params


@functools.cache
def larger() -> Path:
    """The first anchor."""
    return carry_out("distill", *distilled(ordered(), layers=3, ffn=72))


@functools.cache
def smaller() -> Path:
    """The second anchor."""
    return carry_out("distill", *distilled(larger(), layers=2, ffn=48))


def between(
    method: str = "group_alpha", tokens: int = 512, how: Mapping[str, Any] | None = None, **lengths: int
) -> Step:
    """(inputs, params) of an interpolation between the two anchors, as the planner makes them of an `interpolate`."""
    asked = Interpolate.model_validate({"method": method, "tokens": tokens, **(how or {})}, strict=False)
    params: dict[str, Any] = {"shape": shape_of(larger(), **({"layers": 3, "ffn": 64} | lengths)), **asked.params()}
    inputs = {"larger": larger()} | ({"smaller": smaller()} if asked.reads_smaller else {})
    splits = {"split": "heldout", **({"fitted_split": "train"} if asked.refit == "auto" else {})}
    return (inputs | {"corpus": packed()}, params | splits) if asked.reads_text else (inputs, params)
