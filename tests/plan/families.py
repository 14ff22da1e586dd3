"""Small projects for the tests of the planner: a family around SmolLM2's shape, and the chain and graph it gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from colbuild.arch import read_structure
from colbuild.errors import EXIT_SPEC_ERROR, SpecError
from colbuild.plan.drawing.build_graph import BuildGraph, build_graph
from colbuild.plan.shapes.chain import Chain, resolve_chain
from colbuild.spec import LoadedFamily, load_family
from tests.helpers.configs import SMOLLM2

ANSNET = read_structure(SMOLLM2)
VERSIONS = {"torch": "2.6.0", "onnx": "1.17.0", "onnxruntime": "1.22.0"}

ANCHORS = """\
    - {name: a100, params: 103M}
    - {name: a76, params: 76M}
"""
DESNETS = """\
  - {name: phone, params: 88M, exports: [phone-int8]}
  - {name: kiosk, shape: {layers: 22, ffn: 1152}, recover: {recipe: recipes/recover.yaml}}
  - {name: watch, params: 76M, exports: [phone-int8]}
"""
DISTILL = """\
sequence: 256
loss:
  temperature: 1.0
  kd_weight: 0.9
optimizer: {lr: 5e-4}
batch: 8
"""
RECOVER = """\
tokens: 2M
optimizer: {lr: 1e-4}
batch: 8
"""


def project(
    root: Path,
    *,
    ansnet: str = "{source: ./ansnet}",
    anchors: str = ANCHORS,
    desnets: str = DESNETS,
    data: str = "  train: {source: ./corpus.txt}\n",
    distill: str = DISTILL,
    recover: str = RECOVER,
    profile: str = "precision: int8\n",
    extra: str = "",
    bridge: str = "",
) -> Path:
    """Writes a project; returns its family's path."""
    family = (
        f"apiVersion: colbuild/v1\nname: fam\nansnet: {ansnet}\n"
        f"data:\n{data}chain:\n  recipe: recipes/distill.yaml\n  tokens: 80k\n"
        + (f"  bridge: {bridge}\n" if bridge else "")
        + f"  anchors:\n{anchors}desnets:\n{desnets}{extra}"
    )
    files = {
        "specs/family.yaml": family,
        "recipes/distill.yaml": distill,
        "recipes/recover.yaml": recover,
        "exports/phone-int8.yaml": profile,
        "exports/gateway.yaml": "context: 8192\n",
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root / "specs/family.yaml"


def load(root: Path, **parts: str) -> LoadedFamily:
    """Loads a project written by `project`."""
    return load_family(project(root, **parts))


def chain(root: Path, **parts: str) -> Chain:
    """The solved chain of a project."""
    return resolve_chain(load(root, **parts), ANSNET)


def graph(root: Path, **parts: str) -> BuildGraph:
    """The steps of a project."""
    loaded = load(root, **parts)
    return build_graph(loaded.family, resolve_chain(loaded, ANSNET), VERSIONS)


def refusal(root: Path, **parts: str) -> list[str]:
    """The problems that solving a project's shapes reports, one text each."""
    loaded = load(root, **parts)
    with pytest.raises(SpecError) as caught:
        resolve_chain(loaded, ANSNET)
    assert caught.value.exit_code == EXIT_SPEC_ERROR
    return caught.value.message.split("\n\n")[1:]
