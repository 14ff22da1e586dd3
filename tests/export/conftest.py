"""A tiny model and its packages, made once for all tests here."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.export.helpers import export
from tests.helpers.tiny import make_tiny_model


@pytest.fixture(autouse=True)
def _forks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that try packages are forks, which takes milliseconds; `tests/test_confined.py` starts them anew too."""
    monkeypatch.setattr("colbuild.confined._has_one_thread", lambda: True)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def fp32_package(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tiny_model, tmp_path_factory.mktemp("packages") / "fp32", precision="fp32")


@pytest.fixture(scope="session")
def int8_package(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tiny_model, tmp_path_factory.mktemp("packages") / "int8", precision="int8")
