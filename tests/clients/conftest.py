"""Packages of every form, made once; clients read their folders as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.export.helpers import build
from tests.helpers.tiny import make_tiny_model

FORMS: dict[str, dict[str, Any]] = {
    "fp32": {"precision": "fp32"},
    "fp16": {"precision": "fp16"},
    "int8": {"precision": "int8"},
    "int4": {"precision": "int4"},
    "int8-standard": {"precision": "int8", "operators": "standard"},
    "int4-standard": {"precision": "int4", "operators": "standard"},
}


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a package for each form, by its name."""
    folder = tmp_path_factory.mktemp("clients")
    model = make_tiny_model(folder / "model")
    for name, profile in FORMS.items():
        build(model, folder / name, **profile)
    return folder


def sample(package: Path) -> dict[str, Any]:
    return json.loads((package / "manifest.json").read_text(encoding="utf-8"))["sample"]
