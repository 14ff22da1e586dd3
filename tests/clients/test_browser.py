"""A page in headless Chromium answers with a package's folder as it is: Transformers.js on onnxruntime-web, in WebAssembly."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.clients.conftest import FORMS, sample, shortfall


@pytest.mark.slow
def test_a_page_generates_a_sentence(node: Path, packages: Path):
    folders = [str(packages / form) for form in FORMS]
    done = subprocess.run(
        ["node", "browser.mjs", *folders], cwd=node, capture_output=True, text=True, check=False, timeout=500
    )
    if "no browser:" in done.stderr:
        pytest.skip(done.stderr.strip()[-200:])
    assert done.returncode == 0, done.stderr[-2000:]
    said = {line["package"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert said.keys() == set(FORMS)
    for form in FORMS:
        found = said[form]
        assert "error" not in found, found
        assert found["shown"] == found["sentence"] != ""
        assert len(found["tokens"]) == len(sample(packages / form)["tokens"])
        # WebAssembly's products do not round activations to bytes.
        assert shortfall(packages / form, found["tokens"]) < 0.1, form


def test_tokens_that_are_not_a_packages_are_noticed(packages: Path):
    tokens = sample(packages / "int8")["tokens"]
    assert shortfall(packages / "int8", tokens) < 0.05
    assert shortfall(packages / "int8", [*tokens[:-1], tokens[-1] + 1]) > 0.5
