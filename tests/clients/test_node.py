"""Node's onnxruntime and Transformers.js run a package's folder as it is, without a network."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.clients.conftest import FORMS, sample


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
