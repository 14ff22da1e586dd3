"""`plan` of several families: each in turn, and what they share counted once. Nothing is trained here."""

from __future__ import annotations

import json

import pytest

from colbuild.errors import EXIT_FAILED, EXIT_SPEC_ERROR, EXIT_WORK_PENDING
from tests.helpers.project import replace_in

SPEC = "specs/tiny.yaml"
OTHER = "specs/other.yaml"


@pytest.fixture
def two(project, colbuild):
    """A second family that only differs in its last anchor; the first one does not reach down to it, so it is the same."""
    replace_in(project / "recipes/distill.yaml", "form: anchor", "form: segment")
    text = (
        (project / SPEC).read_text().replace("name: tiny\n", "name: other\n", 1).replace("params: 200k", "params: 220k")
    )
    (project / OTHER).write_text(text)
    return colbuild


def test_each_family_is_planned_in_turn_and_then_their_sum(two):
    ran = two("plan", SPEC, OTHER)
    assert ran.code == 0, ran.err
    assert ran.out.index("tiny · AnsNet") < ran.out.index("other · AnsNet") < ran.out.index("Together: 2 families")
    assert "  shared by tiny, other: source ansnet, corpus train, order ansnet, distill large" in ran.out


def test_shared_steps_are_counted_once(two):
    told = json.loads(two("plan", SPEC, OTHER, "--json").out)
    assert told["format"] == "colbuild.plans.v1"
    assert [plan["family"] for plan in told["plans"]] == ["tiny", "other"]
    every = sum(len(plan["steps"]) for plan in told["plans"])
    assert told["steps"] == every - len(told["shared"]) == sum(told["states"].values())
    first = told["shared"][0]
    assert first == {"steps": {"tiny": "source ansnet", "other": "source ansnet"}, "state": "new"}
    shared = {step["steps"]["tiny"] for step in told["shared"]}
    assert "distill large" in shared
    assert not {"distill small", "interpolate middle", "evaluate small"} & shared


def test_a_file_given_twice_is_one_family(two):
    assert json.loads(two("plan", SPEC, f"./{SPEC}", "--json").out)["shared"] == []


def test_exit_code_tells_whether_any_has_work(two):
    assert two("plan", SPEC, OTHER).code == 0
    assert two("plan", SPEC, OTHER, "--exit-code").code == EXIT_WORK_PENDING


def test_families_of_different_projects_share_nothing_that_lies_in_them(two, project, tmp_path):
    import shutil

    shutil.copytree(project, tmp_path / "elsewhere")
    told = json.loads(two("plan", SPEC, str(tmp_path / "elsewhere" / OTHER), "--json").out)
    assert told["shared"] == []


def test_mistakes_of_every_family_are_told(two, project):
    for spec in (SPEC, OTHER):
        replace_in(project / spec, "tokens: 4k", "tokens: 4kk")
    ran = two("plan", SPEC, OTHER)
    assert ran.code == EXIT_SPEC_ERROR
    assert "specs/tiny.yaml:" in ran.err
    assert "specs/other.yaml:" in ran.err


def test_two_families_of_one_name_are_refused(two, project):
    replace_in(project / OTHER, "name: other", "name: Tiny")
    ran = two("plan", SPEC, OTHER)
    assert ran.code == EXIT_SPEC_ERROR
    assert "both describe a family called 'Tiny'" in ran.err


def test_what_only_one_family_has_is_refused_with_several(two):
    assert two("plan", SPEC, OTHER, "--target", "least").code == EXIT_FAILED
    assert two("plan", SPEC, OTHER, "-o", "plan.json").code == EXIT_FAILED
    assert two("build", SPEC, OTHER).code == EXIT_FAILED
