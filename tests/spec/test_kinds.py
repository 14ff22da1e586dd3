"""A file of one kind that is given as another: told in one sentence, with what it is for."""

from __future__ import annotations

import json

import pytest

from colbuild.errors import EXIT_SPEC_ERROR, SpecError
from colbuild.spec import load_family
from tests.helpers.project import ROOT
from tests.spec.projects import FAMILY, PROFILE, RECIPE, problems, project

LOCK = json.dumps({"format": "colbuild.lock.v1", "ansnet": {}, "spec": {}, "sources": {}})
PLAN = json.dumps({"format": "colbuild.plan.v1", "family": "tiny", "sources": {}})
CONFIG = json.dumps({"model_type": "llama", "hidden_size": 64})


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("recipes/x.yaml", RECIPE, "a recipe, not a family = a family names it, as in chain: {recipe: recipes/x.yaml}"),
        ("recipes/x.yaml", "extends: recipes/distill.yaml\n", "a recipe, not a family"),
        ("exports/x.yaml", PROFILE, "a device profile, not a family = a DesNet names it, as in exports: [x]"),
        ("specs/x.lock", LOCK, "the lock of a family, not a family"),
        ("x.json", PLAN, "a saved plan, not a family = 'colbuild build --plan x.json' builds it"),
        ("config.json", CONFIG, "the configuration of a model, not a family"),
    ],
)
def test_a_file_that_is_no_family_says_what_it_is(tmp_path, file, text, told):
    project(tmp_path)
    path = tmp_path / file
    path.write_text(text)
    with pytest.raises(SpecError) as caught:
        load_family(path)
    assert caught.value.exit_code == EXIT_SPEC_ERROR
    first, *lines = caught.value.message.split("\n")
    assert first == "1 problem in the spec"
    message, _, hint = told.partition(" = ")
    assert f"{file}:1:1: this file is {message}" in lines
    assert hint in lines[-1]
    assert file.count("/") == 0 or "specs/family.yaml" in lines[-1]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"recipes__distill": PROFILE}, "'recipes/distill.yaml' is a device profile, not a recipe"),
        ({"recipes__distill": FAMILY}, "'recipes/distill.yaml' is a family, not a recipe"),
        ({"exports__phone_int8": RECIPE}, "'exports/phone-int8.yaml' is a recipe, not a device profile"),
        ({"exports__phone_int8": FAMILY}, "'exports/phone-int8.yaml' is a family, not a device profile"),
    ],
)
def test_a_file_that_a_family_names_as_another_kind_is_told_where_it_is_named(tmp_path, given, told):
    found = problems(tmp_path, **given)
    assert len(found) == 1
    assert found[0].startswith("specs/family.yaml:")
    assert told in found[0]


def test_no_file_of_this_project_is_taken_for_another_kind():
    for path in sorted((ROOT / "specs").glob("*.yaml")):
        load_family(path)


@pytest.mark.parametrize("text", ["precision: int8\n", "tokens: 5\n", "nonsense: 1\n"])
def test_a_file_with_mistakes_is_what_it_was_given_as(tmp_path, text):
    assert not any("not a recipe" in problem for problem in problems(tmp_path, recipes__distill=f"seed: x\n{text}"))
