"""What several folders of tests share: the tiny inputs, and the tiny family built once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from colbuild.plan.cost.machine import CACHE_VARIABLE, MachineSpeed, cache_path, remember, this_machine
from colbuild.run import executor
from tests.helpers.nurseries import SharedNursery, ThreadNursery
from tests.helpers.project import ROOT, Ran, command, copy_project

# The tiny model is faster on one thread, and tests running side by side do not disturb each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# New examples are for us to find; the same commit passes or fails in CI every time.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


MACHINE = MachineSpeed(matrices=100e9, plain=12.5e6)
"""How fast this machine is for every test, so that no golden file depends on where it is compared."""


@pytest.fixture(scope="session", autouse=True)
def known_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache folder of the tests' own, in which this machine's speed is remembered."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))
        path = cache_path()
        assert path is not None
        remember(path, {this_machine(): MACHINE})
        yield


@pytest.fixture(scope="session")
def shared_nursery() -> Iterator[SharedNursery]:
    """Steps run in processes of their own all the same; only the import of torch is shared."""
    shared = SharedNursery()
    yield shared
    shared.close()


@pytest.fixture(autouse=True)
def _one_nursery(monkeypatch: pytest.MonkeyPatch, shared_nursery: SharedNursery) -> None:
    monkeypatch.setattr(executor, "open_nursery", lambda: shared_nursery)


@pytest.fixture
def steps_run_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps run in this process, where a test may replace what they do."""
    monkeypatch.setattr(executor, "open_nursery", ThreadNursery)


@pytest.fixture(scope="session")
def tiny_inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The inputs of specs/tiny.yaml, made in a process of their own so that this one need not import torch."""
    folder = tmp_path_factory.mktemp("tiny-inputs")
    subprocess.run([sys.executable, "-m", "tests.helpers.tiny", str(folder)], cwd=ROOT, check=True, capture_output=True)
    return folder


@pytest.fixture
def project(tmp_path: Path, tiny_inputs: Path) -> Path:
    """A fresh project with the tiny family, nothing built."""
    return copy_project(tmp_path / "project", tiny_inputs)


@pytest.fixture
def colbuild(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Runs colbuild in the fresh project."""
    return command(project, monkeypatch, capsys)


@pytest.fixture(scope="session")
def finished_project(tmp_path_factory: pytest.TempPathFactory, tiny_inputs: Path) -> tuple[Path, str]:
    """A project whose tiny family was built by a process of its own, and what that printed. Tests leave it as it is."""
    folder = copy_project(tmp_path_factory.mktemp("finished") / "project", tiny_inputs)
    built = subprocess.run(
        [sys.executable, "-m", "colbuild", "build", "specs/tiny.yaml"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder, built.stdout
