"""What the commands print, as a person reads it. `COLBUILD_GOLDEN=write` writes the golden files anew."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from colbuild import __version__
from colbuild.errors import EXIT_SPEC_ERROR
from tests.helpers.project import ROOT, command, replace_in

GOLDEN = Path(__file__).parent / "golden"
SPEC = "specs/tiny.yaml"


def check_golden(name: str, text: str) -> None:
    """Compares a text with its golden file; times and trailing spaces do not count."""
    text = re.sub(r"About [^(]* \(", "About N s (", text)
    text = re.sub(r" +\d+(\.\d+)? (s|ms)\b", " N s", text)
    text = "\n".join(line.rstrip() for line in text.splitlines()) + "\n"
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("COLBUILD_GOLDEN") == "write":
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.fixture
def built(finished_project, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "copy"
    shutil.copytree(finished_project[0], folder)
    return folder, command(folder, monkeypatch, capsys)


def test_plan_of_a_fresh_family(colbuild):
    ran = colbuild("plan", SPEC)
    assert ran.code == 0
    check_golden("plan-fresh", ran.out)


def test_plan_with_nothing_to_do(built):
    check_golden("plan-nothing", built[1]("plan", SPEC).out)


def test_plan_after_a_recipe_value_changed_says_which_and_where(built):
    folder, colbuild = built
    replace_in(folder / "recipes" / "distill.yaml", "temperature: 1.0", "temperature: 2.0")
    out = colbuild("plan", SPEC).out
    check_golden("plan-changed", out)
    assert "loss.temperature 1.0 -> 2.0  recipes/distill.yaml" in out


def test_plan_after_a_desnet_was_added_builds_only_that(built):
    folder, colbuild = built
    replace_in(folder / SPEC, "  - {name: least", "  - {name: extra, params: 310k}\n  - {name: least")
    plan = json.loads(colbuild("plan", SPEC, "--json").out)
    pending = [step["id"] for step in plan["steps"] if step["state"] != "cached"]
    assert pending == ["interpolate extra", "evaluate extra", "export extra/tiny-int8"]


def test_anchor_that_nobody_needs_is_not_built_and_the_plan_says_so(project, colbuild):
    replace_in(
        project / SPEC, "{name: small, params: 200k}", "{name: small, params: 200k}\n    - {name: dust, params: 150k}"
    )
    out = colbuild("plan", SPEC).out
    assert "not built: no DesNet needs it" in out
    assert "distill      dust" not in out


def test_plan_shows_every_anchors_teacher_and_why_an_anchor_is_not_built(project, colbuild):
    small = "{name: small, params: 200k"
    steps = "{name: dear, params: 300k}\n    - {name: brief, params: 250k, tokens: 64}\n    - "
    replace_in(project / SPEC, small, steps + small)
    replace_in(project / SPEC, "{name: middle, params: 270k", "{name: middle, params: 350k")
    replace_in(project / SPEC, "{name: shaped, shape: {layers: 4, ffn: 128}", "{name: shaped, params: 350k")
    out = colbuild("plan", SPEC).out
    told = {line.split()[0]: line.split("kv)  ")[1] for line in out.splitlines() if "kv)" in line}
    alone = ", not elastic: no DesNet lies right below it"
    assert told["large"] == f"distilled from the AnsNet{alone}"
    assert told["dear"] == "not built: no DesNet needs it, and brief is cheaper from large directly"
    assert told["brief"] == f"distilled from large, as a step towards small{alone}"
    assert told["small"] == f"distilled from brief{alone}"
    plan = json.loads(colbuild("plan", SPEC, "--json").out)
    assert [(step["student"], step["teacher"]) for step in plan["route"]] == [
        ("large", "ansnet"),
        ("brief", "large"),
        ("small", "brief"),
    ]
    assert [anchor["name"] for anchor in plan["not_built"]] == ["dear"]


def test_status_lists_no_package_that_is_gone_from_out(finished_project, monkeypatch, capsys):
    run = command(finished_project[0], monkeypatch, capsys)

    def middle():
        return next(row for row in json.loads(run("status", SPEC, "--json").out)["models"] if row["name"] == "middle")

    folder = Path(middle()["packages"][0]["folder"])
    aside = folder.with_name("aside")
    folder.rename(aside)
    try:
        assert folder.name not in [package["profile"] for package in middle()["packages"]]
        assert middle()["unplaced"] == [folder.name]
        told = f"not in out/tiny/: middle/{folder.name}; 'colbuild build {SPEC}' puts it there"
        assert told in run("status", SPEC).out
        # Another version of it is not what the family is now.
        folder.mkdir()
        (folder / "manifest.json").write_text("{}")
        assert middle()["unplaced"] == [folder.name]
        shutil.rmtree(folder)
    finally:
        aside.rename(folder)
    assert middle()["unplaced"] == []


def test_status_before_and_after(project, colbuild, finished_project, monkeypatch, capsys):
    check_golden("status-fresh", colbuild("status", SPEC).out)
    after = command(finished_project[0], monkeypatch, capsys)("status", SPEC, "--json")
    status = json.loads(after.out)
    assert status["pending"] == []
    assert all(model["bits_per_byte"] for model in status["models"])
    assert {model["name"]: len(model["packages"]) for model in status["models"]} == {
        "ansnet": 1, "large": 0, "small": 0, "middle": 2, "shaped": 1, "least": 1,
    }  # fmt: skip


def test_plan_writes_nothing(project, colbuild):
    before = sorted(project.rglob("*"))
    assert colbuild("plan", SPEC).code == 0
    assert sorted(project.rglob("*")) == before


def test_store_can_be_moved(project, colbuild, tmp_path):
    (project / ".tiny" / "corpus.txt").write_text("\n" * 100_000)
    assert colbuild("build", SPEC, "--store", str(tmp_path / "elsewhere")).code == EXIT_SPEC_ERROR
    plan = json.loads(colbuild("plan", SPEC, "--store", str(tmp_path / "elsewhere"), "--json").out)
    assert plan["steps"][0]["state"] == "cached"
    assert {path.name for path in (project / ".colbuild").iterdir()} == {".gitignore", "project.json"}, "its id alone"


def test_json_events_are_one_value_a_line(finished_project, monkeypatch, capsys):
    ran = command(finished_project[0], monkeypatch, capsys)("build", SPEC, "--json")
    events = [json.loads(line) for line in ran.out.splitlines()]
    assert events[0]["event"] == "build_started"
    assert events[-1]["event"] == "build_finished"
    assert events[-1]["ran"] == 0


@pytest.mark.parametrize("kind", ["family", "recipe", "profile", "plan"])
def test_schema_is_the_committed_one(colbuild, kind):
    assert colbuild("schema", kind).out == (ROOT / "docs" / "schema" / f"{kind}.v1.json").read_text(encoding="utf-8")


def test_version_and_help(colbuild):
    assert colbuild("--version").out == f"colbuild {__version__}\n"
    shown = colbuild("--help")
    assert shown.code == 0
    for name in ("plan", "build", "status", "schema", "run"):
        assert name in shown.out
