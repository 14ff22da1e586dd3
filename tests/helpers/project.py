"""A project of one's own for a test: the tiny family's files in a temporary folder, and the command line to use them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from colbuild.cli.app import run_command

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Ran:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


def copy_project(folder: Path, inputs: Path) -> Path:
    """Copies specs, recipes, exports and the tiny inputs into a folder."""
    for name in ("specs", "recipes", "exports"):
        # A lock holds digests of inputs that are made anew here.
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.lock"))
    shutil.copytree(inputs, folder / ".tiny")
    return folder


def command(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Runs colbuild in a project, in this process, on a screen of 100 columns that is no terminal."""

    def run(*arguments: str) -> Ran:
        monkeypatch.chdir(project)
        monkeypatch.setenv("COLUMNS", "120")
        monkeypatch.delenv("COLBUILD_STORE", raising=False)
        capsys.readouterr()
        code = run_command(list(arguments))
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


def replace_in(path: Path, old: str, new: str) -> None:
    """Edits a file as a user would; the text to replace has to be there."""
    text = path.read_text(encoding="utf-8")
    if old not in text:
        raise AssertionError(f"{old!r} is not in {path}")
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
