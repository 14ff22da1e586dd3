"""optimum's ORTModelForCausalLM runs a package's folder as it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.conftest import FORMS, HERE, sample

NEEDED = ("optimum-onnx[onnxruntime]==0.1.0", "torch==2.13.0")


@pytest.fixture(scope="session")
def optimum(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has it; COLBUILD_OPTIMUM_PYTHON names one that is there already."""
    if ready := os.environ.get("COLBUILD_OPTIMUM_PYTHON"):
        return Path(ready)
    folder = tmp_path_factory.mktemp("optimum")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = next(path for path in (folder / "bin/python", folder / "Scripts/python.exe") if path.exists())
    install = [str(python), "-m", "pip", "install", "--quiet", *NEEDED]
    done = subprocess.run(install, capture_output=True, text=True, check=False, timeout=900)
    if done.returncode:
        pytest.skip(f"pip cannot install optimum: {done.stderr.strip()[-200:]}")
    return python


@pytest.mark.slow
def test_it_generates_the_manifests_tokens(optimum: Path, packages: Path):
    command = [str(optimum), str(HERE / "optimum_generate.py"), *(str(packages / form) for form in FORMS)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    said = {line["package"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert said.keys() == set(FORMS)
    for form in FORMS:
        found, told = said[form]["tokens"], sample(packages / form)["tokens"]
        assert found
        assert found == told[: len(found)], form
        assert said[form]["text"] == "Ada visits Zürich."
