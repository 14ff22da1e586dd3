"""Saved plans on the command line: plan -o, build --plan, and what makes one refused. Nothing is trained here."""

from __future__ import annotations

import json

import pytest

from colbuild.errors import EXIT_FAILED, EXIT_STALE_PLAN, EXIT_WORK_PENDING
from colbuild.report.screen.plan_view import time_range
from tests.cli.test_explain import write_instead
from tests.helpers.project import replace_in
from tests.helpers.steps import carry_out_instead

SPEC = "specs/tiny.yaml"


@pytest.fixture
def quick(monkeypatch, colbuild, steps_run_here):
    """Builds without training: every operation writes a small file."""
    carry_out_instead(monkeypatch, write_instead)
    return colbuild


@pytest.fixture
def saved(quick, project):
    assert quick("plan", SPEC, "-o", "plan.json").code == 0
    return quick


@pytest.mark.parametrize(
    ("least", "most", "told"),
    [
        (4, 4.2, "4 s"),
        (720, 840, "12 to 14 min"),
        (30, 120, "30 s to 2 min"),
        (125, 185, "2 min 5 s to 3 min 5 s"),
        (60, 3600, "1 min to 1 h"),
        (0, 30, "0.0 to 30 s"),
    ],
)
def test_a_range_names_a_common_unit_once(least, most, told):
    assert time_range(least, most) == told


def test_a_saved_plan_is_what_json_prints(quick, project):
    ran = quick("plan", SPEC, "--json", "-o", "plan.json")
    assert json.loads(ran.out) == json.loads((project / "plan.json").read_text(encoding="utf-8"))


def test_saving_says_how_to_build_it_and_keeps_the_exit_code(quick):
    ran = quick("plan", SPEC, "--output", "plan.json", "--exit-code")
    assert ran.code == EXIT_WORK_PENDING
    assert ran.out.splitlines()[-1] == (
        "Saved as plan.json; 'colbuild build --plan plan.json' builds it, or lists the changes."
    )


def test_a_saved_plan_builds_its_own_family_and_targets(quick, project):
    quick("plan", SPEC, "--target", "least", "-o", "plan.json")
    assert quick("build", "--plan", "plan.json").code == 0
    assert (project / "out/tiny/least/tiny-int8").is_dir()
    assert not (project / "out/tiny/middle").exists()


def test_a_plan_whose_work_is_done_is_stale(saved):
    assert saved("build", "--plan", "plan.json").code == 0
    ran = saved("build", "--plan", "plan.json")
    assert ran.code == EXIT_STALE_PLAN
    assert "store: source ansnet was planned to run, and is in the store now" in ran.err


def test_a_changed_value_refuses_the_plan_with_its_line_and_builds_nothing(saved, project):
    replace_in(project / "recipes/distill.yaml", "temperature: 1.0", "temperature: 2.0")
    ran = saved("build", "--plan", "plan.json")
    assert ran.code == EXIT_STALE_PLAN
    assert "anchors[large].recipe.loss.temperature 1.0 -> 2.0  recipes/distill.yaml:11" in ran.err
    assert "save a new plan" in ran.err
    assert not (project / ".colbuild").exists()


def test_a_changed_source_refuses_the_plan(saved, project):
    (project / ".tiny/corpus.txt").write_text("Something else entirely.\n" * 1000)
    ran = saved("build", "--plan", "plan.json")
    assert ran.code == EXIT_STALE_PLAN
    assert "source ./.tiny/corpus.txt: sha256:" in ran.err


def test_a_plan_of_another_family_is_refused(saved, project):
    (project / "specs/other.yaml").write_bytes((project / SPEC).read_bytes())
    ran = saved("build", "--plan", "plan.json", "specs/other.yaml")
    assert ran.code == EXIT_STALE_PLAN
    assert "it is a plan of specs/tiny.yaml, not of specs/other.yaml" in ran.err


def test_targets_beside_a_saved_plan_are_a_mistake(saved):
    ran = saved("build", "--plan", "plan.json", "--target", "least")
    assert ran.code == EXIT_FAILED
    assert "leave out --target or --plan" in ran.err


def test_a_file_that_is_no_plan_is_refused(saved, project):
    assert saved("build", "--plan", "missing.json").code == EXIT_FAILED
    ran = saved("build", "--plan", SPEC)
    assert ran.code == EXIT_FAILED
    assert "not a saved plan" in ran.err


def test_estimates_follow_the_runs(quick, project):
    assert "uncalibrated" in quick("plan", SPEC).out
    quick("build", SPEC)
    replace_in(project / "recipes/distill.yaml", "temperature: 1.0", "temperature: 2.0")
    [summary] = [line for line in quick("plan", SPEC).out.splitlines() if line.startswith("Plan: ")]
    assert "(median of 1 run)" in summary
    plan = json.loads(quick("plan", SPEC, "--json").out)
    told = {step["id"]: step["estimate"] for step in plan["steps"]}
    assert told["source ansnet"] is None
    assert told["distill large"]["runs"] == 1
    assert plan["totals"]["seconds_least"] <= plan["totals"]["seconds_most"]
    assert plan["ansnet_reads"]["times"] == 1


def test_a_step_that_gives_the_same_bytes_says_so_and_stops_there(quick, project, monkeypatch):
    quick("build", SPEC)

    def same_result(run, params):
        write_instead(run, {key: value for key, value in params.items() if key != "recipe"})

    carry_out_instead(monkeypatch, same_result)
    replace_in(project / "recipes/distill.yaml", "temperature: 1.0", "temperature: 2.0")
    quick("build", SPEC)
    replace_in(project / "recipes/distill.yaml", "temperature: 2.0", "temperature: 3.0")
    ran = quick("build", SPEC)
    told = [
        line.split(":")[0].strip() for line in ran.out.splitlines() if "same result as before; nothing after" in line
    ]
    assert told == ["distill large", "distill small", "recover shaped"]
    replace_in(project / "recipes/distill.yaml", "temperature: 3.0", "temperature: 4.0")
    events = [json.loads(line) for line in quick("build", SPEC, "--json").out.splitlines()]
    finished = [event for event in events if event["event"] == "step_finished"]
    assert [event["step"] for event in finished] == told
    assert all(event["same"] for event in finished)
