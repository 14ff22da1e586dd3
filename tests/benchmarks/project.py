"""A project of this repository's recipes and profiles, built by `colbuild build`, for benchmarks of whole families."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]


def make_project(folder: Path) -> Path:
    """A folder with copies of specs, recipes and profiles."""
    for name in ("specs", "recipes", "exports"):
        shutil.copytree(ROOT / name, folder / name, dirs_exist_ok=True)
    return folder


def colbuild(project: Path, *arguments: str) -> str:
    """What a command prints, with a store of the project's own; raises CalledProcessError where it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "colbuild", *arguments],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLBUILD_STORE": str(project / ".colbuild")},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return done.stdout


def result_of(project: Path, spec: str, step: str) -> Path:
    """The folder of a step's result."""
    import colbuild as api

    loaded = api.load_family(project / spec)
    found = json.loads(colbuild(project, "why", step, spec, "--json"))
    return api.open_workspace(loaded, project / ".colbuild").store.files(found["output"])
