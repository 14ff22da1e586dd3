"""Fault 6 on a whole family: a store that may only be read, and one on another file system than the project."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from colbuild.store.remote.remote_store import open_remote
from tests.e2e.builds import SPEC, assert_sound, faults_project, made, starts
from tests.helpers.modes import obey_modes
from tests.helpers.project import ROOT
from tests.store.little import content


@pytest.fixture
def read_only(builder, good, tmp_path):
    """The finished project, of which nothing may be written, and colbuild in it."""
    project = good.copy(tmp_path / "project")
    # A copy has stamps of its own; noting them is the last that is ever written.
    assert builder.build(project).code == 0
    everything = [project, *project.rglob("*")]
    modes = {path: path.stat().st_mode for path in everything}
    for path in everything:
        path.chmod(0o555 if path.is_dir() else 0o444)

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-B", "-m", "colbuild", *arguments],
            cwd=project,
            env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"},
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=obey_modes,
            timeout=120,
        )

    yield project, run
    for path, mode in modes.items():
        path.chmod(mode)


def test_finished_family_can_be_planned_shown_and_built_where_nothing_may_be_written(read_only, good, count):
    project, run = read_only
    assert subprocess.run(
        ["touch", str(project / "x")], check=False, capture_output=True, preexec_fn=obey_modes
    ).returncode
    before = content(project)
    commands = [
        ("plan", SPEC, "--exit-code"),
        ("status", SPEC),
        ("build", SPEC),
        ("build", SPEC, "--frozen"),
        ("cache", "ls"),
        ("cache", "verify"),
        ("cache", "gc"),
    ]
    for arguments in commands:
        done = run(*arguments)
        assert done.returncode == 0, (arguments, done.stdout + done.stderr)
        assert "Traceback" not in done.stderr
    assert content(project) == before
    assert made(project) == good.made
    count(commands=len(commands), files_written=0)


def test_build_that_has_to_write_where_nothing_may_be_written_says_so(read_only):
    project, run = read_only
    recipe = project / "recipes/recover.yaml"
    recipe.chmod(0o644)
    recipe.write_text(recipe.read_text().replace("lr: 1e-4", "lr: 2e-4"))
    recipe.chmod(0o444)
    done = run("build", SPEC)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: cannot write {project}/.colbuild"), done.stderr
    assert "not in the store yet: " in done.stderr
    remote = re.search(r"--store DIR --remote (\S+)", done.stderr.replace("\n", " "))
    assert remote is not None
    assert remote[1] == f"file://{project}/.colbuild"
    open_remote(remote[1])
    assert "Traceback" not in done.stderr


def test_fresh_checkout_gets_its_family_out_of_a_store_that_may_only_be_read(read_only, good, tiny_inputs, tmp_path):
    shared = read_only[0] / ".colbuild"
    fresh = faults_project(tmp_path / "fresh", tiny_inputs)
    before = content(shared)

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-B", "-m", "colbuild", *arguments, "--store", str(shared)],
            cwd=fresh,
            env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"},
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=obey_modes,
            timeout=120,
        )

    for command in (("plan", SPEC, "--exit-code"), ("build", SPEC), ("build", SPEC)):
        done = run(*command)
        assert done.returncode == 0, (command, done.stdout + done.stderr)
    assert content(fresh / "out") == good.made.out
    # Another family of the same project, of which the store noted nothing yet.
    other = (fresh / SPEC).read_text().replace("name: faults", "name: others")
    (fresh / "specs/others.yaml").write_text(other)
    done = run("build", "specs/others.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert content(fresh / "out" / "others") == content(fresh / "out" / "faults")
    assert content(shared) == before


@pytest.mark.slow
def test_store_on_another_file_system_than_the_project(builder, good, tmp_path, tiny_inputs, count):
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK) or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system here")
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        store = Path(folder) / "store"
        project = faults_project(tmp_path / "project", tiny_inputs)
        options = ("--json", "--store", str(store))
        assert builder.build(project, *options).code == 0
        assert made(project, store) == good.made
        assert all(path.stat().st_nlink == 1 for path in (project / "out").rglob("*") if path.is_file())
        assert builder.build(project, *options).code == 0
        assert sum(starts(store).values()) == len(good.made.steps)
        assert_sound(store)
        count(steps_run=len(good.made.steps), files_in_out=len(good.made.out))
