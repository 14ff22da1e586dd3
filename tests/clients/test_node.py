"""Node's onnxruntime and Transformers.js run a package's folder as it is, without a network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.clients.conftest import FORMS, sample

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the script and what it imports; COLBUILD_NODE_MODULES names one that has it already."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("Node is not installed")
    folder = tmp_path_factory.mktemp("node")
    for name in ("package.json", "generate.mjs"):
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


@pytest.mark.slow
def test_transformers_js_generates_the_manifests_tokens(node: Path, packages: Path):
    folders = [str(packages / form) for form in FORMS]
    done = subprocess.run(
        ["node", "generate.mjs", *folders], cwd=node, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said = {line["package"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert said.keys() == set(FORMS)
    for form in FORMS:
        assert said[form]["tokens"] == sample(packages / form)["tokens"], form
        assert said[form]["text"] == "Ada visits Zürich."
        assert said[form]["chat"] == "user: Ada?\nassistant: "
