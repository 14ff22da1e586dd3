"""A whole family over a bridge: how good its models are, and how much smaller its packages than with the full vocabulary.

`python -m tests.benchmarks.bridge_family [--quick] [--json FILE] [--work FOLDER]`. Needs the package index (or what pip is
configured with). Builds `specs/pocket.yaml` by `colbuild build`: SmolLM2-135M into a llama of 16,000 tokens, two anchors, two
DesNets, int8 packages. Beside each package stands one of the same body with the AnsNet's 49,152 tokens, cut out of the ordered
AnsNet and exported for the same profile. `--quick` trains on 2,048 tokens for each model.
"""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from colbuild.arch import Shape
from tests.benchmarks.harness import Result, run_kept_benchmark
from tests.benchmarks.packages_models import folder_size
from tests.benchmarks.project import colbuild, make_project, result_of
from tests.helpers.steps import run_step

COMMAND: Final = "python -m tests.benchmarks.bridge_family"
SPEC: Final = "specs/pocket.yaml"
PROFILE: Final = "phone-int8"
_COLUMNS: Final = ("package, MB", "the same, 49,152 tokens", "share")


def _run(quick: bool, work: Path) -> Result:
    project = make_project(work / "project")
    spec = project / SPEC
    if quick:
        spec.write_text(spec.read_text(encoding="utf-8").replace("tokens: 32k", "tokens: 2048"), encoding="utf-8")
    colbuild(project, "build", SPEC)
    status = json.loads(colbuild(project, "status", SPEC, "--json"))
    rows = [_row(model, project, work) for model in status["models"]]
    return Result(tuple(rows), ())


def _row(model: Mapping[str, Any], project: Path, work: Path) -> dict[str, Any]:
    row: dict[str, Any] = {
        "model": model["name"],
        "parameters": f"{model['parameters']:,}",
        "bits/byte": round(model["bits_per_byte"], 4),
    }
    package = project / "out/pocket" / model["name"] / PROFILE
    if not package.is_dir():
        return {**row, **dict.fromkeys(_COLUMNS, "–")}
    size = folder_size(package)
    full = folder_size(_with_full_vocabulary(model, project, work))
    return {
        **row,
        **dict(zip(_COLUMNS, (round(size / 1e6, 1), round(full / 1e6, 1), f"{size / full:.0%}"), strict=True)),
    }


def _with_full_vocabulary(model: Mapping[str, Any], project: Path, work: Path) -> Path:
    """The package of a DesNet's body with the AnsNet's own vocabulary."""
    from colbuild.plan.planning import export_versions
    from colbuild.spec import load_family
    from colbuild.weights.files.checkpoint import load_checkpoint, save_checkpoint
    from colbuild.weights.prefix.subset import subset

    body, made = work / f"{model['name']}-body", work / f"{model['name']}-package"
    for folder in (body, made):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    ordered = result_of(project, SPEC, "order ansnet")
    whole = load_checkpoint(ordered)
    shape = replace(Shape(**model["shape"]), vocab=whole.structure.shape.vocab)
    save_checkpoint(subset(whole, shape), body, ordered)
    family = load_family(project / SPEC).family
    profile = next(one for desnet in family.desnets for one in desnet.exports if one.name == PROFILE)
    params = {"profile": profile.model_dump(mode="json", exclude={"name", "multiples"}), "versions": export_versions()}
    run_step("export", {"model": body}, params, made)
    return made


if __name__ == "__main__":
    run_kept_benchmark("bridge_family", COMMAND, functools.partial(_run), ("torch", "transformers", "onnxruntime"))
