"""Packages of every form, made once; clients read their folders as they are."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import pytest

from colbuild.export.graph import onnx_file
from colbuild.export.runtime.running import open_package
from colbuild.export.runtime.session import feed_whole
from tests.export.helpers import build
from tests.helpers.tiny import make_tiny_model

FORMS: dict[str, dict[str, Any]] = {
    "fp32": {"precision": "fp32"},
    "fp16": {"precision": "fp16"},
    "int8": {"precision": "int8"},
    "int4": {"precision": "int4"},
    "int4-whole": {"precision": "int4", "embedding_bits": 4},
    "int8-standard": {"precision": "int8", "operators": "standard"},
    "int4-standard": {"precision": "int4", "operators": "standard"},
    "fp32-parts": {"precision": "fp32"},
}
PARTS = "fp32-parts"
"""As a model is that is too large for one file."""


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a package for each form, by its name."""
    folder = tmp_path_factory.mktemp("clients")
    model = make_tiny_model(folder / "model")
    for name, profile in FORMS.items():
        with pytest.MonkeyPatch.context() as patch:
            if name == PARTS:
                patch.setattr(onnx_file, "LARGEST_FILE", 500_000)
            build(model, folder / name, **profile)
    assert (folder / PARTS / "onnx/model.onnx_data_1").exists()
    return folder


def sample(package: Path) -> dict[str, Any]:
    return json.loads((package / "manifest.json").read_text(encoding="utf-8"))["sample"]


def shortfall(package: Path, tokens: Sequence[int]) -> float:
    """By how much a token that a client chose is at most less likely to the package than its likeliest there.

    In standard deviations of the logits: kernels that round otherwise may swap two that are almost alike.
    """
    opened = open_package(package, threads=1)
    prompt = sample(package)["prompt"]
    logits = feed_whole(opened.decoder, [*prompt, *tokens])[len(prompt) - 1 : -1]
    chosen = logits[numpy.arange(len(tokens)), list(tokens)]
    return float(((logits.max(axis=1) - chosen) / logits.std(axis=1)).max())


HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the scripts and what they import; COLBUILD_NODE_MODULES names one that has it already."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("Node is not installed")
    folder = tmp_path_factory.mktemp("node")
    for name in ("package.json", "generate.mjs", "sample.mjs", "browser.mjs", "page.html"):
        shutil.copyfile(HERE / name, folder / name)
    if ready := os.environ.get("COLBUILD_NODE_MODULES"):
        (folder / "node_modules").symlink_to(ready)
        return folder
    # Its install script would fetch GPU libraries; the CPU's are in the package.
    command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock"]
    installed = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=600)
    if installed.returncode:
        pytest.skip(f"npm cannot install the clients: {installed.stderr.strip()[-200:]}")
    return folder
