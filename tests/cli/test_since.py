"""`plan --since REV`: what a branch would rebuild. Nothing is trained here."""

from __future__ import annotations

import json
import subprocess

import pytest

from colbuild.errors import EXIT_FAILED, EXIT_SPEC_ERROR, EXIT_WORK_PENDING
from tests.helpers.project import replace_in

SPEC = "specs/tiny.yaml"


def git(folder, *arguments):
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def branch(project, colbuild):
    """The tiny family in a repository of its own, committed as `main`, with a command line inside it."""
    git(project, "init", "-q", "-b", "main")
    git(project, "add", "-A")
    git(project, "commit", "-q", "-m", "the family")
    return colbuild


def since(run, *arguments):
    ran = run("plan", SPEC, "--since", "main", "--json", *arguments)
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


def states(run, *arguments):
    return {step["id"]: step["state"] for step in since(run, *arguments)["steps"]}


def test_nothing_changed_is_nothing_to_rebuild_whatever_the_store_holds(branch):
    told = since(branch)
    assert (told["format"], told["steps"], told["gone"]) == ("colbuild.since.v1", [], [])
    assert branch("plan", SPEC, "--since", "main", "--exit-code").code == 0


def test_a_changed_recipe_value_is_told_with_its_place_and_what_follows_is_conditional(branch, project):
    replace_in(project / "recipes/distill.yaml", "temperature: 1.0", "temperature: 2.0")
    told = {step["id"]: step for step in since(branch)["steps"]}
    assert told["distill large"]["state"] == "changed"
    [reason] = told["distill large"]["reasons"]
    assert reason.startswith("loss.temperature 1.0 -> 2.0  recipes/distill.yaml:")
    assert told["evaluate large"]["reasons"] == ["only if large changes"]
    assert not {"source ansnet", "corpus train", "order ansnet", "evaluate ansnet"} & told.keys()
    assert branch("plan", SPEC, "--since", "main", "--exit-code").code == EXIT_WORK_PENDING
    out = branch("plan", SPEC, "--since", "main").out
    assert "distill      large" in out
    assert "3 changed, 10 conditional, 5 as before" in out.splitlines()[-1]


def test_a_value_written_another_way_changes_nothing(branch, project):
    replace_in(project / SPEC, "tokens: 4k", "tokens: 4000 # the same")
    assert states(branch) == {}


def test_another_checkpoint_interval_rebuilds_nothing(branch, project):
    replace_in(project / "recipes/distill.yaml", "checkpoint_every: 5min", "checkpoint_every: 30s")
    assert states(branch) == {}


def test_new_and_removed_desnets(branch, project):
    replace_in(project / SPEC, "  - {name: middle, params: 270k,", "  - {name: other, params: 290k,")
    told = since(branch)
    assert {step["id"]: step["state"] for step in told["steps"]} == {
        "interpolate other": "new",
        "evaluate other": "new",
        "export other/tiny-int8": "new",
        "export other/tiny-fp32": "new",
    }
    assert "interpolate middle" in told["gone"]
    assert "No longer built: interpolate middle" in branch("plan", SPEC, "--since", "main").out


def test_a_renamed_desnet_is_the_same_model(branch, project):
    replace_in(project / SPEC, "{name: middle,", "{name: centre,")
    told = since(branch)
    assert told["steps"] == []
    assert told["gone"] == []


def test_a_target_is_compared_alone(branch, project):
    replace_in(project / "recipes/recover.yaml", "tokens:", "seed: 9\ntokens:")
    assert "recover shaped" in states(branch)
    assert states(branch, "--target", "least") == {}


def test_changed_content_of_a_source_that_git_follows_is_told(branch, project):
    git(project, "add", "-f", ".tiny")
    git(project, "commit", "-q", "--allow-empty", "-m", "inputs")
    assert states(branch) == {}
    corpus = project / ".tiny/corpus.txt"
    corpus.write_text(corpus.read_text() + "\nmore\n")
    told = {step["id"]: step for step in since(branch)["steps"]}
    assert told["corpus train"]["reasons"] == ["the content of ./.tiny/corpus.txt changed"]


def test_a_project_below_the_repositorys_root_is_found(project, colbuild):
    git(project.parent, "init", "-q", "-b", "main")
    git(project.parent, "add", "-A")
    git(project.parent, "commit", "-q", "-m", "all")
    replace_in(project / "exports/tiny-int8.yaml", "precision: int8", "precision: fp32")
    assert "export least/tiny-int8" in states(colbuild)


def test_nothing_is_written(branch, project):
    replace_in(project / "recipes/distill.yaml", "temperature: 1.0", "temperature: 2.0")
    status = ["git", "-C", project, "status", "--porcelain"]
    before = subprocess.run(status, capture_output=True, check=True).stdout
    branch("plan", SPEC, "--since", "main")
    assert subprocess.run(status, capture_output=True, check=True).stdout == before


# -- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("revision", ["nowhere", "--help", "", "main:specs/tiny.yaml"])
def test_an_unknown_revision_is_told(branch, revision):
    ran = branch("plan", SPEC, f"--since={revision}")
    assert ran.code == EXIT_FAILED
    assert f"git has no revision '{revision}'" in ran.err
    assert "a branch, a tag" in ran.err


def test_outside_of_a_repository_it_says_so(colbuild, monkeypatch, project):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(project.parent))
    ran = colbuild("plan", SPEC, "--since", "main")
    assert ran.code == EXIT_FAILED
    assert "is not in a git repository" in ran.err


def test_without_git_it_says_so(branch, monkeypatch):
    monkeypatch.setenv("PATH", "")
    ran = branch("plan", SPEC, "--since", "main")
    assert ran.code == EXIT_FAILED
    assert "git is not installed" in ran.err


def test_a_spec_that_was_not_there_names_those_that_were(branch, project):
    (project / "specs/new.yaml").write_text((project / SPEC).read_text())
    ran = branch("plan", "specs/new.yaml", "--since", "main")
    assert ran.code == EXIT_SPEC_ERROR
    assert "specs/new.yaml is not in main (" in ran.err
    assert "there were: specs/family.yaml, specs/pocket.yaml, specs/tiny.yaml" in ran.err


def test_a_spec_that_was_wrong_then_is_told_as_such(branch, project):
    replace_in(project / SPEC, "tokens: 4k", "tokens: 4kk")
    git(project, "commit", "-qam", "a mistake")
    replace_in(project / SPEC, "tokens: 4kk", "tokens: 4k")
    ran = branch("plan", SPEC, "--since", "main")
    assert ran.code == EXIT_SPEC_ERROR
    assert "specs/tiny.yaml of main (" in ran.err
    assert "'4kk' is not a count" in ran.err


def test_a_link_out_of_the_project_is_not_followed(branch, project, tmp_path):
    recipe = project / "recipes/distill.yaml"
    kept = recipe.read_text()
    (tmp_path / "secret.yaml").write_text(kept)
    recipe.unlink()
    recipe.symlink_to(tmp_path / "secret.yaml")
    git(project, "commit", "-qam", "a link")
    recipe.unlink()
    recipe.write_text(kept)
    ran = branch("plan", SPEC, "--since", "main")
    assert ran.code == EXIT_SPEC_ERROR
    assert "there is no recipe 'recipes/distill.yaml'" in ran.err


def test_what_cannot_go_with_it_is_refused(branch):
    assert branch("plan", SPEC, "--since", "main", "-o", "plan.json").code == EXIT_FAILED
    assert branch("plan", SPEC, "specs/family.yaml", "--since", "main").code == EXIT_FAILED


def test_a_bridges_tokenizer_of_then_is_looked_at_where_today_names_none(branch, project):
    tokenizer = project / "words"
    tokenizer.mkdir()
    (tokenizer / "tokenizer.json").write_bytes((project / ".tiny/ansnet/tokenizer.json").read_bytes())
    replace_in(project / SPEC, "chain:\n", "chain:\n  bridge: {tokenizer: ./words}\n")
    git(project, "commit", "-q", "-a", "-m", "a bridge")
    replace_in(project / SPEC, "chain:\n  bridge: {tokenizer: ./words}\n", "chain:\n")
    told = since(branch)
    assert "bridge" in told["gone"]
    assert {step["id"]: step["state"] for step in told["steps"]}["distill large"] == "changed"
