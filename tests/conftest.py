"""What several folders of tests share: the tiny inputs, and the tiny family built once."""

from __future__ import annotations

import fcntl
import os
import shutil
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


@pytest.fixture(scope="session", autouse=True)
def unsynced() -> Iterator[None]:
    """Waits for no disk in this process: a third of the time of a small build. No test cuts the power.

    Tests that count calls of `os.fsync` do so on top of this; processes that tests start sync all the same.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        patch.setattr(os, "sync", lambda: None)
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


def made_once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that the first process of a run makes, and all of its processes read."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    done = folder.with_name(f"{name}.done")
    with folder.with_name(f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def tiny_inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The inputs of specs/tiny.yaml, made in a process of their own so that this one need not import torch."""

    def make(folder: Path) -> None:
        command = [sys.executable, "-m", "tests.helpers.tiny", str(folder)]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)

    return made_once(tmp_path_factory, "tiny-inputs", make)


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

    def make(folder: Path) -> None:
        printed = _build(copy_project(folder / "project", tiny_inputs))
        (folder / "printed").write_text(printed, encoding="utf-8")

    made = made_once(tmp_path_factory, "finished", make)
    # Each process of the tests has a copy, since commands write notes; a build settles it.
    folder = tmp_path_factory.mktemp("finished") / "project"
    shutil.copytree(made / "project", folder, symlinks=True)
    _build(folder)
    return folder, (made / "printed").read_text(encoding="utf-8")


def _build(folder: Path) -> str:
    built = subprocess.run(
        [sys.executable, "-m", "colbuild", "build", "specs/tiny.yaml"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return built.stdout
