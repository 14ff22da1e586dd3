"""A family as a notebook uses it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import colbuild
from colbuild.errors import StoppedError
from colbuild.interface import families
from tests.helpers.project import command, replace_in

SPEC = "specs/tiny.yaml"


@pytest.fixture
def family(project, monkeypatch):
    monkeypatch.chdir(project)
    monkeypatch.delenv("COLBUILD_STORE", raising=False)
    return colbuild.load(SPEC)


def test_a_fresh_family_shows_itself(family, project):
    assert repr(family) == f"<Family tiny: 2 anchors, 3 DesNets, {project / SPEC}>"
    assert (family.name, family.path) == ("tiny", project / SPEC)
    assert repr(family.models) == "<6 models of tiny: ansnet, large, small, middle, shaped, least>"
    assert repr(family.models["middle"]) == "<Model middle: 270k DesNet, large <> small>"
    assert repr(family.packages) == "<0 packages of tiny>"
    assert repr(family.status()).startswith("<Status of tiny: 0 of ")
    assert "large &lt;&gt; small" in family._repr_html_()
    assert "large &lt;&gt; small" in family.models["middle"]._repr_html_()
    assert family.packages._repr_html_().startswith("<table>")


def test_strings_and_paths_are_alike(family, project):
    assert colbuild.load(Path(SPEC)).plan().pending == colbuild.load(str(project / SPEC)).plan().pending
    assert (
        colbuild.load(SPEC, store="elsewhere").plan().pending
        == colbuild.load(SPEC, store=Path("elsewhere")).plan().pending
    )


def test_a_plan_is_a_line_a_text_and_a_table(family, project, monkeypatch, capsys, tmp_path):
    run = command(project, monkeypatch, capsys)
    plan = family.plan()
    assert repr(plan) == f"<Plan of tiny: {len(plan.steps)} steps, {len(plan.steps)} to run>"
    assert str(plan) == run("plan", SPEC).out
    assert f"<td>{plan.pending[3]}</td><td>+</td>" in plan._repr_html_()
    assert plan.save(str(tmp_path / "plan.json")) == tmp_path / "plan.json"
    few = family.plan("large")
    assert set(few.pending) < set(plan.pending)


def test_why_tells_what_the_command_tells(family, project, monkeypatch, capsys):
    run = command(project, monkeypatch, capsys)
    why = family.why("large")
    assert repr(why).startswith("<Why distill large: new, ")
    assert str(why) == run("why", "large", SPEC).out
    assert why._repr_html_().startswith("<pre>")


def test_the_lock_is_written(family, project):
    assert family.lock() == project / "specs/tiny.lock"
    assert (project / "specs/tiny.lock").is_file()
    assert family.plan(lock="locked").pending


def test_hostile_names_do_not_become_html(family, project):
    replace_in(project / SPEC, "./.tiny/corpus.txt", "./.tiny/<b>corpus.txt")
    (project / ".tiny/corpus.txt").rename(project / ".tiny/<b>corpus.txt")
    changed = family.__class__(colbuild.load_family(Path(SPEC)), family._workspace)
    assert "<b>" not in changed.plan()._repr_html_() + changed.why("corpus train")._repr_html_()


WRONG = {
    "no file": (lambda f: colbuild.load("specs/nope.yaml"), "there is no file", "did you mean specs/"),
    "not a path": (lambda f: colbuild.load(5), "not a path", "pathlib"),
    "no target": (lambda f: f.plan("nope"), "no step or model 'nope'", "models: 'ansnet'"),
    "a number as target": (lambda f: f.plan(3), "a target is not a text", "string"),
    "another lock": (lambda f: f.plan(lock="open"), "lock is 'open'", "refresh, locked, frozen"),
    "no step": (lambda f: f.why("nope"), "no step or model 'nope'", "models"),
    "no model": (lambda f: f.models["larg"], "tiny has no model 'larg'", "did you mean 'large'?"),
    "no package": (lambda f: f.packages["x"], "tiny has no package 'x'", "build the family first"),
    "jobs as text": (lambda f: f.build(jobs="x"), "jobs", "whole number"),
    "retries below 0": (lambda f: f.build(retries=-1), "retries", "whole number"),
    "a number as remote": (lambda f: f.build(remote=3), "remote cache's URL is not a text", "string"),
    "an empty remote": (lambda f: f.build(remote=""), "is not a URL", "s3://"),
    "no URL as remote": (lambda f: f.build(remote="foo"), "'foo' is not a URL", "s3://"),
    "nowhere to push to": (lambda f: f.build(push=True), "there is no remote", "COLBUILD_REMOTE"),
    "a text as switch": (lambda f: f.build(keep_going="no"), "keep_going is 'no'", "True or False"),
    "a list as name": (lambda f: f.models[["a"]], "has no model", "models here"),
    "a home of nobody": (lambda f: colbuild.load("~nouser/x"), "folder of an unknown user", "whole path"),
    "a file as store": (lambda f: colbuild.load(SPEC, store=SPEC), "it is a file", "load(store=…)"),
    "a folder as plan": (lambda f: f.plan().save("specs"), "cannot be saved", "name a file in a folder"),
    "no progress": (lambda f: f.build(progress="x"), "progress is 'x'", "True, False"),
    "not built": (lambda f: os.fspath(f.models["large"]), "'large' is not built yet", "build the family"),
    "not built, mixed": (
        lambda f: colbuild.interpolate(f.models["large"], f.models["small"], params="270k"),
        "'large' is not built yet",
        "build the family",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_told_with_a_hint(case, family):
    call, message, hint = WRONG[case]
    with pytest.raises(colbuild.ColbuildError) as caught:
        call(family)
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")
    assert str(caught.value) == f"{caught.value.message}\nhint: {caught.value.hint}"


def test_a_missing_model_is_a_key_error_too(family):
    assert "larg" not in family.models
    assert family.models.get("larg") is None


@pytest.mark.slow
def test_a_built_family_gives_its_models_and_packages(finished_project, monkeypatch):
    monkeypatch.chdir(finished_project[0])
    monkeypatch.delenv("COLBUILD_STORE", raising=False)
    family = colbuild.load(SPEC)
    built = family.build(lock="frozen")
    assert built.ran == ()
    assert repr(built).startswith("<BuildResult of tiny: 0 of ")
    assert "<p>BuildResult of tiny" in built._repr_html_()
    assert family.models["middle"].perplexity > 1
    assert list(family.packages) == [
        "ansnet/tiny-fp32",
        "middle/tiny-int8",
        "middle/tiny-fp32",
        "shaped/tiny-int8",
        "least/tiny-int8",
    ]
    heard = []
    ends = family.models["large"], family.models["small"]
    between = colbuild.interpolate(*ends, params="270k", method="global_alpha", alpha=0.5, progress=heard.append)
    assert {event.step for event in heard} <= {"interpolate"}
    assert between.parameters == pytest.approx(270_000, rel=0.01)


def test_an_interrupt_is_no_error_that_a_loop_would_swallow(family, monkeypatch):
    def stopped(*_):
        raise StoppedError("interrupted: 0 of 18 steps are in the store")

    monkeypatch.setattr(families, "build", stopped)
    with pytest.raises(KeyboardInterrupt, match="0 of 18"):
        family.build()
