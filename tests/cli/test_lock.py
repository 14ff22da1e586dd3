"""`colbuild lock`, and what plan, build and status do with a lock."""

from __future__ import annotations

import json
import shutil

import pytest

from colbuild.errors import EXIT_FAILED, EXIT_SOURCE_UNAVAILABLE, EXIT_SPEC_ERROR
from tests.helpers.project import command, replace_in

SPEC = "specs/tiny.yaml"
LOCK = "specs/tiny.lock"


def line(ran):
    """The line about the lock in a command's output."""
    return next(line for line in ran.out.splitlines() if line.startswith("lock: "))


def test_lock_writes_the_file_once_and_nothing_else(project, colbuild):
    before = set(project.rglob("*"))
    assert f"Wrote {LOCK}: 2 sources, 5 shapes, a route of 2." in colbuild("lock", SPEC).out
    assert set(project.rglob("*")) - before == {project / LOCK}
    text = (project / LOCK).read_bytes()
    assert colbuild("lock", SPEC).out == f"{LOCK} is up to date.\n"
    assert (project / LOCK).read_bytes() == text


def test_plan_and_status_say_how_the_lock_stands(project, colbuild):
    assert line(colbuild("plan", SPEC)) == "lock: none"
    colbuild("lock", SPEC)
    assert line(colbuild("plan", SPEC)) == "lock: up to date"
    replace_in(project / "recipes" / "distill.yaml", "temperature: 1.0", "temperature: 2.0")
    for name in ("plan", "status"):
        told = line(colbuild(name, SPEC))
        assert told == "lock: out of date: anchors.large.recipe.loss.temperature 1.0 -> 2.0  recipes/distill.yaml:11"


def test_a_text_that_reads_like_no_value_is_told_from_none(project, colbuild):
    colbuild("lock", SPEC)
    replace_in(project / SPEC, "\ndata:\n", "\ndata:\n  begin: none\n")
    assert line(colbuild("plan", SPEC)) == "lock: out of date: data.begin none -> 'none'  specs/tiny.yaml:13"


def test_a_plan_never_writes_the_lock(project, colbuild):
    colbuild("plan", SPEC)
    assert not (project / LOCK).exists()


def test_lock_says_what_it_brings_up_to_date(project, colbuild):
    colbuild("lock", SPEC)
    replace_in(project / SPEC, "{name: middle, params: 270k", "{name: middle, params: 280k")
    assert "  desnets.middle.params 270000 -> 280000  specs/tiny.yaml:" in colbuild("lock", SPEC).out
    assert line(colbuild("plan", SPEC)) == "lock: up to date"


def test_a_locked_clone_plans_without_its_inputs(project, colbuild):
    whole = json.loads(colbuild("plan", SPEC, "--json").out)
    colbuild("lock", SPEC)
    shutil.rmtree(project / ".tiny")
    ran = colbuild("plan", SPEC, "--locked", "--json")
    assert ran.code == 0
    clone = json.loads(ran.out)
    assert clone["models"] == whole["models"]
    assert [(step["id"], step["key"]) for step in clone["steps"]] == [
        (step["id"], step["key"]) for step in whole["steps"]
    ]


def test_locked_needs_a_lock_that_is_up_to_date(project, colbuild):
    missing = colbuild("plan", SPEC, "--locked")
    assert (missing.code, f"there is no {LOCK}" in missing.err) == (EXIT_SPEC_ERROR, True)
    colbuild("lock", SPEC)
    assert colbuild("plan", SPEC, "--locked").code == 0
    replace_in(project / SPEC, "{name: middle, params: 270k", "{name: middle, params: 280k")
    for name in ("plan", "build"):
        stale = colbuild(name, SPEC, "--locked")
        assert stale.code == EXIT_SPEC_ERROR
        assert f"{LOCK} is out of date\n  desnets.middle.params 270000 -> 280000  {SPEC}:" in stale.err


def test_frozen_uses_the_lock_as_it_is(project, colbuild):
    colbuild("lock", SPEC)
    models = json.loads(colbuild("plan", SPEC, "--json").out)["models"]
    replace_in(project / SPEC, "{name: middle, params: 270k", "{name: middle, params: 280k")
    assert json.loads(colbuild("plan", SPEC, "--frozen", "--json").out)["models"] == models
    assert json.loads(colbuild("plan", SPEC, "--json").out)["models"] != models


@pytest.mark.parametrize("name", ["plan", "build"])
def test_frozen_refuses_a_source_that_differs(project, colbuild, name):
    colbuild("lock", SPEC)
    (project / ".tiny" / "corpus.txt").write_text("something else\n")
    ran = colbuild(name, SPEC, "--frozen")
    assert ran.code == EXIT_SOURCE_UNAVAILABLE
    assert f"./.tiny/corpus.txt does not match {LOCK}" in ran.err


def test_locked_and_frozen_exclude_each_other(colbuild):
    ran = colbuild("plan", SPEC, "--locked", "--frozen")
    assert (ran.code, "exclude each other" in ran.err) == (EXIT_FAILED, True)


def test_build_writes_a_missing_lock_before_it_builds_and_mends_a_stale_one(project, colbuild):
    (project / ".tiny" / "corpus.txt").write_text("\n" * 100_000)
    assert colbuild("build", SPEC).code == EXIT_SPEC_ERROR  # there is no text
    assert line(colbuild("plan", SPEC)) == "lock: up to date"
    replace_in(project / SPEC, "{name: middle, params: 270k", "{name: middle, params: 280k")
    ran = colbuild("build", SPEC)
    assert "lock: out of date: desnets.middle.params 270000 -> 280000" in ran.out
    assert f"wrote {LOCK}" in ran.out
    assert line(colbuild("plan", SPEC)) == "lock: up to date"


def test_a_merge_conflict_stops_a_build_and_lock_mends_it(project, colbuild):
    colbuild("lock", SPEC)
    right = (project / LOCK).read_text()
    replace_in(project / LOCK, "{\n", "{\n<<<<<<< HEAD\n")
    assert line(colbuild("plan", SPEC)) == f"lock: out of date: a merge conflict is left in {LOCK}  {LOCK}:2"
    for arguments in (("build",), ("plan", "--locked"), ("plan", "--frozen")):
        ran = colbuild(*arguments, SPEC)
        assert ran.code == EXIT_SPEC_ERROR
        assert f"{LOCK}:2:1: a merge conflict is left" in ran.err
        assert f"write this file again with 'colbuild lock {SPEC}'" in ran.err
    assert colbuild("lock", SPEC).code == 0
    assert (project / LOCK).read_text() == right


def test_who_may_not_write_beside_the_spec_can_build_all_the_same(project, colbuild, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied", str(project / LOCK))

    (project / ".tiny" / "corpus.txt").write_text("\n" * 100_000)
    monkeypatch.setattr("pathlib.Path.replace", refuse)
    ran = colbuild("lock", SPEC)
    assert (ran.code, f"cannot write {project / LOCK}" in ran.err) == (EXIT_FAILED, True)
    assert "the lock is not written: cannot write" in colbuild("build", SPEC).out
    assert not list(project.glob("specs/.*"))


@pytest.mark.slow
def test_a_finished_family_is_locked_and_needs_no_inputs_to_say_so(finished_project, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "copy"
    shutil.copytree(finished_project[0], folder)
    shutil.rmtree(folder / ".tiny")
    ran = command(folder, monkeypatch, capsys)("build", SPEC, "--locked")
    assert ran.code == 0
    assert line(ran) == "lock: up to date"
    assert "Nothing to do" in ran.out
