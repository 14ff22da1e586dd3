"""A family that stands finished in a store and in `out/`, built in seconds: its steps only look as if they did something."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from unittest import mock

import colbuild as api
from colbuild.ops.step_run import StepRun
from colbuild.plan.operation import Operation
from colbuild.run import executor
from tests.benchmarks.plan import family
from tests.helpers.nurseries import ThreadNursery

_MODEL: Final = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
_PACKAGE: Final = ("manifest.json", "genai_config.json", "tokenizer.json", "model.onnx")
_METRICS: Final = {"bits_per_byte": 1.0, "perplexity": 10.0, "top1_agreement": 0.5}
_LINKED: Final = 1 << 20
"""Bytes of weights: so many that `out/` shares them with the store."""


def finished_family(root: Path, desnets: int) -> int:
    """Writes a family and builds it, with operations that only look as if; returns how many steps it has."""
    family(root, desnets)
    loaded = api.load_family(root / "specs/family.yaml")
    workspace = api.open_workspace(loaded, root / ".colbuild")
    with (
        mock.patch.object(executor, "open_nursery", ThreadNursery),
        mock.patch.object(Operation, "carry_out", lambda kind, run, params: _write(kind.op, run, params)),
    ):
        built = api.build(api.make_plan(loaded, workspace), workspace)
    return len(built.ran)


def _write(op: str, run: StepRun, params: Mapping[str, Any]) -> None:
    """Files as the operation leaves them: as many, and different for each step."""
    told = json.dumps({"params": params, "inputs": sorted(path.parent.name for path in run.inputs.values())})
    if op == "evaluate":
        (run.output / "metrics.json").write_text(json.dumps(_METRICS | {"of": told}), encoding="utf-8")
        return
    for name in _PACKAGE if op == "export" else _MODEL:
        (run.output / name).write_text(f"{name} {told}", encoding="utf-8")
    weights = told.encode("utf-8").ljust(_LINKED, b"\0")
    (run.output / ("model.onnx.data" if op == "export" else "model.safetensors")).write_bytes(weights)
