"""The commands that explain a plan, as a person reads them and as machines do. Nothing is trained here."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

import colbuild as api
from colbuild.cli.app import app
from colbuild.errors import EXIT_FAILED, EXIT_SPEC_ERROR, EXIT_WORK_PENDING
from colbuild.hashing import canonical_json
from tests.helpers.golden import check_file
from tests.helpers.project import ROOT, replace_in
from tests.helpers.steps import carry_out_instead

GOLDEN = Path(__file__).parent / "golden"
SPEC = "specs/tiny.yaml"


def check_golden(name: str, text: str) -> None:
    """Compares with a golden file; digests, times and sizes do not count."""
    text = re.sub(r"\b[0-9a-f]{64}\b", "<digest>", text)
    text = re.sub(r"[-0-9]{10} [0-9:]{5} UTC, took .*", "<time>, took N s, made N kB", text)
    text = re.sub(r"  made with  (.*)", r"  made with  N threads, <processor>, torch N", text)
    check_file(GOLDEN / f"{name}.txt", text)


def write_instead(run, params):
    """An operation that only writes down what it was told, and what a status reads."""
    inputs = {role: sorted(file.read_text() for file in path.rglob("told")) for role, path in run.inputs.items()}
    (run.output / "told").write_bytes(canonical_json([dict(params), inputs]))
    metrics = {"bits_per_byte": 2.5, "perplexity": 9.0, "top1_agreement": 0.5, "kl": 0.25}
    (run.output / "metrics.json").write_text(json.dumps(metrics))


@pytest.fixture
def quick(monkeypatch, colbuild, steps_run_here):
    """Builds without training: every operation writes a small file."""
    carry_out_instead(monkeypatch, write_instead)
    return colbuild


@pytest.fixture
def built(quick):
    assert quick("build", SPEC).code == 0
    return quick


@pytest.fixture
def changed(built, project):
    """A built family, and then one recipe value changed."""
    replace_in(project / "recipes/distill.yaml", "temperature: 1.0", "temperature: 2.0")
    return built


# -- plan --exit-code -------------------------------------------------------------------------------------------------


def test_exit_code_tells_whether_there_is_work(quick):
    assert quick("plan", SPEC).code == 0
    assert quick("plan", SPEC, "--exit-code").code == EXIT_WORK_PENDING
    assert quick("plan", SPEC, "--exit-code", "--json").code == EXIT_WORK_PENDING
    assert quick("build", SPEC, "--target", "large").code == 0
    assert quick("plan", SPEC, "--exit-code", "--target", "large").code == 0
    assert quick("plan", SPEC, "--exit-code").code == EXIT_WORK_PENDING
    assert quick("build", SPEC).code == 0
    assert quick("plan", SPEC, "--exit-code").code == 0


def test_a_mistake_is_no_pending_work(quick, project):
    assert quick("plan", SPEC, "--exit-code", "--target", "nobody").code == EXIT_FAILED
    replace_in(project / SPEC, "tokens: 4k", "tokens: 4kk")
    assert quick("plan", SPEC, "--exit-code").code == EXIT_SPEC_ERROR


# -- --target ---------------------------------------------------------------------------------------------------------


def steps_of(ran):
    return [step["id"] for step in json.loads(ran.out)["steps"]]


def test_plan_of_a_target_holds_what_it_needs_and_says_what_it_leaves(colbuild):
    assert steps_of(colbuild("plan", SPEC, "--target", "least", "--json")) == [
        "source ansnet",
        "corpus train",
        "order ansnet",
        "distill large",
        "distill small",
        "evaluate small",
        "export least/tiny-int8",
    ]
    last = colbuild("plan", SPEC, "--target", "least").out.splitlines()[-1]
    assert last == (
        "--target least leaves 11 other steps of tiny: interpolate middle, interpolate shaped, recover shaped, "
        "evaluate ansnet, export ansnet/tiny-fp32, evaluate large, evaluate middle, export middle/tiny-int8, "
        "export middle/tiny-fp32, evaluate shaped, export shaped/tiny-int8."
    )


def test_several_targets_and_plus_signs(colbuild):
    both = steps_of(colbuild("plan", SPEC, "--target", "least", "--target", "middle/tiny-fp32", "--json"))
    assert {"export least/tiny-int8", "export middle/tiny-fp32"} <= set(both)
    assert "export middle/tiny-int8" not in both
    assert "evaluate ansnet" in steps_of(colbuild("plan", SPEC, "--target", "+least", "--json"))
    assert "export shaped/tiny-int8" in steps_of(colbuild("plan", SPEC, "--target", "large+", "--json"))


def test_build_of_a_target_builds_and_places_only_that(quick, project):
    ran = quick("build", SPEC, "--target", "least")
    assert ran.code == 0
    placed = {path.relative_to(project / "out/tiny").as_posix() for path in (project / "out/tiny").glob("*/*")}
    assert placed == {"small/checkpoint", "least/checkpoint", "least/tiny-int8"}
    table = {line.split()[0]: line for line in ran.out.splitlines() if line[:1].islower() and "x" in line}
    assert table["least"].split()[-1] == "tiny-int8"
    assert table["small"].count("–") == 1
    for unbuilt in ("ansnet", "large", "middle", "shaped"):
        assert table[unbuilt].count("–") == 4, table[unbuilt]
    assert ran.out.splitlines()[-1].startswith("--target least leaves 11 other steps of tiny: interpolate middle, ")


def test_build_of_a_target_shows_what_was_built_before(quick):
    quick("build", SPEC, "--target", "middle")
    out = quick("build", SPEC, "--target", "least").out
    [middle] = [line for line in out.splitlines() if line.startswith("middle")]
    assert "2.500" in middle
    assert "tiny-int8" in middle


def test_build_of_a_target_and_then_the_rest_is_the_whole_build(quick):
    quick("build", SPEC, "--target", "shaped")
    after = json.loads(quick("plan", SPEC, "--json").out)
    pending = {step["id"] for step in after["steps"] if step["state"] != "cached"}
    assert not pending & set(steps_of(quick("plan", SPEC, "--target", "shaped", "--json")))
    assert quick("build", SPEC).code == 0
    assert json.loads(quick("status", SPEC, "--json").out)["pending"] == []


def test_build_of_a_target_that_is_all_there_is_to_build_leaves_nothing(built):
    assert (
        built("build", SPEC, "--target", "least").out.splitlines()[-1]
        == "--target least leaves nothing of tiny undone."
    )


def test_unknown_target_is_explained(colbuild):
    ran = colbuild("build", SPEC, "--target", "leats")
    assert ran.code == EXIT_FAILED
    assert ran.err == "error: there is no step or model 'leats' in this family\nhint: did you mean 'least'?\n"


def test_anchor_that_is_not_built_is_no_target(project, colbuild):
    replace_in(
        project / SPEC, "{name: small, params: 200k}", "{name: small, params: 200k}\n    - {name: dust, params: 150k}"
    )
    ran = colbuild("plan", SPEC, "--target", "dust")
    assert ran.code == EXIT_FAILED
    assert "'dust' is not built: no DesNet needs it" in ran.err


def test_status_of_a_selection_still_shows_the_whole_family(built, project, monkeypatch):
    monkeypatch.chdir(project)
    loaded = api.load_family(Path(SPEC))
    workspace = api.open_workspace(loaded)
    whole = api.family_status(api.make_plan(loaded, workspace), workspace)
    assert api.family_status(api.make_plan(loaded, workspace, targets=["least"]), workspace) == whole


# -- why --------------------------------------------------------------------------------------------------------------


def test_why_of_a_step_that_never_ran(colbuild):
    check_golden("why-fresh", colbuild("why", "distill", "large", SPEC).out)


def test_why_of_a_changed_step(changed):
    check_golden("why-changed", changed("why", "distill large", SPEC).out)


def test_why_of_a_conditional_step(changed):
    check_golden("why-conditional", changed("why", "middle", SPEC).out)


def test_why_of_a_cached_step(built):
    check_golden("why-cached", built("why", "evaluate", "small", SPEC).out)


def test_why_tells_every_difference_not_only_two(built, project):
    recipe = project / "recipes/distill.yaml"
    for old, new in (("kd_weight: 0.6", "kd_weight: 0.8"), ("clip: 1.0", "clip: 0.5"), ("warmup: 0.1", "warmup: 0.2")):
        replace_in(recipe, old, new)
    explained = json.loads(built("why", "large", SPEC, "--json").out)
    assert [difference.partition("  ")[0] for difference in explained["differences"]] == [
        "loss.kd_weight 0.6 -> 0.8",
        "optimizer.clip 1.0 -> 0.5",
        "schedule.warmup 0.1 -> 0.2",
    ]


def test_why_as_json(changed):
    explained = json.loads(changed("why", "distill large", SPEC, "--json").out)
    assert explained["format"] == "colbuild.why.v1"
    assert (explained["step"], explained["state"]) == ("distill large", "changed")
    assert [(use["role"], use["made_by"], use["state"]) for use in explained["inputs"]] == [
        ("teacher.weights", "order ansnet", "="),
        ("corpus", "corpus train", "="),
    ]
    assert all(re.fullmatch("[0-9a-f]{64}", use["digest"]) for use in explained["inputs"])
    parameters = {parameter["name"]: parameter for parameter in explained["parameters"]}
    assert parameters["recipe.loss.temperature"]["value"] == 2.0
    assert parameters["recipe.loss.temperature"]["origin"] == "recipes/distill.yaml:11"
    assert parameters["recipe.seed"]["origin"] == "default"
    assert explained["differences"] == ["loss.temperature 1.0 -> 2.0  recipes/distill.yaml:11"]
    assert explained["last_run"]["seconds"] >= 0
    assert "distill small" in explained["needed_by"]
    assert "export least/tiny-int8" in explained["after_those"]


def test_a_shape_by_hand_says_which_lengths_are_written_and_which_are_the_ansnets(colbuild):
    explained = json.loads(colbuild("why", "interpolate shaped", SPEC, "--json").out)
    origins = {parameter["name"]: parameter["origin"] for parameter in explained["parameters"]}
    assert origins["shape.ffn"] == "specs/tiny.yaml:30"
    assert origins["shape.hidden"] == "the AnsNet's"
    assert origins["method"] == "default"
    assert origins["tokens"] == "specs/tiny.yaml:34"


def test_why_of_a_source_names_where_it_comes_from(colbuild):
    explained = json.loads(colbuild("why", "ansnet", SPEC, "--json").out)
    assert [(use["role"], use["made_by"], use["state"]) for use in explained["inputs"]] == [
        ("raw", "./.tiny/ansnet", None)
    ]


def test_why_of_an_unknown_step_is_explained(colbuild):
    ran = colbuild("why", "distil", "large", SPEC)
    assert ran.code == EXIT_FAILED
    assert "did you mean 'distill large'?" in ran.err


# -- show -------------------------------------------------------------------------------------------------------------


def test_show_prints_the_shapes(colbuild):
    check_golden("show", colbuild("show", SPEC).out)
    shapes = json.loads(colbuild("show", SPEC, "--json").out)
    assert [model["name"] for model in shapes["models"]] == ["ansnet", "large", "small", "middle", "shaped", "least"]
    assert shapes["models"][4]["shape"]["ffn"] == 128


def test_show_resolved_prints_every_value_with_its_origin(colbuild):
    out = colbuild("show", "--resolved", SPEC).out
    check_golden("show-resolved", out)
    assert yaml.safe_load(out)["anchors"][0]["recipe"]["sequence"] == 64


def test_show_resolved_needs_no_ansnet(project, colbuild):
    replace_in(project / SPEC, "./.tiny/ansnet", "hf://nobody/nothing")
    shown = json.loads(colbuild("show", "--resolved", SPEC, "--json").out)
    [source] = [value for value in shown["values"] if value["path"] == "ansnet.source"]
    assert (source["value"], source["file"], source["line"]) == ("hf://nobody/nothing", SPEC, 9)


# -- graph ------------------------------------------------------------------------------------------------------------


def test_graph_prints_a_tree(changed):
    check_golden("graph", changed("graph", SPEC).out)


@pytest.mark.parametrize(
    ("form", "start"), [("mermaid", "%% tiny\nflowchart"), ("dot", 'digraph "tiny" {'), ("svg", "<svg")]
)
def test_graph_prints_each_form_and_nothing_else(colbuild, form, start):
    ran = colbuild("graph", SPEC, "--format", form)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(start)
    assert "export middle/tiny-fp32" in ran.out


def test_graph_of_a_target(colbuild):
    out = colbuild("graph", SPEC, "--target", "least").out
    assert "export least/tiny-int8" in out
    assert "middle" not in out


# -- documentation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["why-changed", "show", "graph"])
def test_the_documented_output_is_the_real_one(name):
    documented = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
    assert (GOLDEN / f"{name}.txt").read_text(encoding="utf-8") in documented


def test_every_command_is_documented():
    documented = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
    commands = [command.name or command.callback.__name__ for command in app.registered_commands]
    assert {"plan", "build", "why", "show", "graph"} <= set(commands)
    assert [name for name in commands if f"| [`{name}`](" not in documented] == []


def test_a_file_alone_is_no_step(colbuild):
    ran = colbuild("why", "specs/tiny.yaml")
    assert ran.code != 0
    assert "name a step, model or package in front of specs/tiny.yaml" in ran.err
