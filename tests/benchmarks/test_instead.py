"""The families that `instead` compares can be planned, and its tables say what the figures mean."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from colbuild.plan.family_plan import load_families, open_workspace
from colbuild.plan.planning import make_plan
from tests.benchmarks import instead_families as families
from tests.benchmarks.instead_families import PROSE, Budget, Built
from tests.benchmarks.instead_tables import Row, Scored, bars, frontier, scratch_note
from tests.helpers.configs import SMOLLM2
from tests.helpers.project import ROOT

BUDGET = Budget(tokens=4096, sizes=3)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    root = tmp_path_factory.mktemp("instead")
    for name in ("specs", "exports", "recipes"):
        (root / name).mkdir()
    for recipe in (ROOT / "recipes").glob("*.yaml"):
        (root / "recipes" / recipe.name).write_text(recipe.read_text())
    for name in ("ansnet", "scratch"):
        (root / name).mkdir()
        (root / name / "config.json").write_text(json.dumps(SMOLLM2))
    (root / "text.txt").write_text("A lamp by the sea.\n" * 50_000)
    return root


LAB = replace(PROSE, ansnet="./ansnet", train={"source": "./text.txt", "heldout": 0.1})
WAYS = {
    "ours": families.ours(LAB, BUDGET),
    "paper": families.paper(LAB, BUDGET),
    "pruned": families.pruned(LAB, BUDGET),
    "nested": families.nested(LAB, BUDGET),
    "patched": families.patched(LAB, BUDGET),
    "direct": families.direct(LAB, BUDGET, 1, 4096),
    **{f"anchors-{count}": families.anchored(LAB, BUDGET, count) for count in (1, 3, 4)},
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_can_be_planned(project, way):
    built = WAYS[way]
    [loaded] = load_families([project / families.write(project, LAB, built)])
    plan = make_plan(loaded, open_workspace(loaded))
    assert set(built.models) <= set(plan.graph.metrics)
    trainings = [step.name for step in plan.graph.steps if step.op == "distill"]
    asked = {"pruned": 0, "nested": 1, "direct": 1, "anchors-1": 1, "anchors-3": 3, "anchors-4": 4}
    assert len(trainings) == asked.get(way, 2)


def test_anchors_of_the_paper_are_ours(project):
    steps = {}
    for way in ("ours", "paper"):
        [loaded] = load_families([project / families.write(project, LAB, WAYS[way])])
        plan = make_plan(loaded, open_workspace(loaded))
        steps[way] = [step.params for step in plan.graph.steps if step.op == "distill"]
    assert steps["ours"] == steps["paper"]


def model(name, bits, flops=0):
    return {
        "name": name,
        "parameters": 1,
        "bits_per_byte": bits,
        "ledger": {"teacher_flops": 0, "student_flops": flops},
    }


def scored(name, tokens, flops, bits, place=0):
    models = {"d": model("d", bits), "student": model("student", bits, flops)}
    return Scored(Built(name, name, {"d": place}, {}, tokens), flops, models)


def test_compute_at_equal_quality_is_read_from_the_curve():
    ours = Scored(Built("ours", "ours", {"d0": 0}, {}, 100), 100, {"d0": model("d0", 1.5)})
    found = [ours, scored("direct-0-50", 50, 200, 1.6), scored("direct-0-100", 100, 800, 1.4)]
    [bar] = bars(found, 1)
    # Half the way in bits per byte is half the way in the logarithm of the cost: 400.
    assert bar.value == pytest.approx(100 / 400)
    assert bar.holds
    assert bar.name.endswith("bits per byte")
    [better] = bars([replace(ours, models={"d0": model("d0", 1.3)}), *found[1:]], 1)
    assert better.value == pytest.approx(100 / 800)
    assert "at most this" in better.name
    [worse] = bars([replace(ours, models={"d0": model("d0", 1.7)}), *found[1:]], 1)
    assert worse.value == pytest.approx(100 / 200)
    assert "at least this" in worse.name


def test_scratch_is_extrapolated_with_a_warning():
    ours = Scored(Built("ours", "ours", {"d1": 1}, {}, 100), 100, {"d1": model("d1", 2.0)})
    runs = [scored("scratch-1", 1_000_000, 1, 3.0), scored("scratch-2", 2_000_000, 1, 2.5)]
    told = scratch_note([ours, *runs], Budget(sizes=3))
    assert told.startswith("From scratch, 4.00M tokens reach the untrained DesNet's 2.000 bits per byte, extrapolated")
    good = replace(ours, models={"d1": model("d1", 3.5)})
    assert scratch_note([good, *runs], Budget(sizes=3)).startswith("From scratch, fewer than 1.00M tokens")
    assert scratch_note([ours], Budget(sizes=3)) == ""


def test_the_best_to_ship_changes_where_another_becomes_better():
    ours = Scored(Built("ours", "colbuild", {"d0": 0, "d1": 1}, {}, 100), 100, {})
    direct = Scored(Built("direct-0-100", "direct", {"d0": 0}, {}, 100), 1000, {"d0": model("d0", 1.0)})
    ours = replace(ours, models={"d0": model("d0", 1.3), "d1": model("d1", 1.5)})
    rows = [
        Row("ways", "the AnsNet", 9, form="int4", size=100.0, package_bits=1.1),
        Row("ways", "colbuild", 5, model_bits=1.3, form="int4", size=60.0, package_bits=1.35),
        Row("ways", "colbuild", 5, model_bits=1.3, form="int8", size=110.0, package_bits=1.3),
        Row("ways", "direct", 5, tokens=100, model_bits=1.0),
    ]
    best = frontier(rows, [ours, direct])
    assert [(row.way, row.size) for row in best] == [("colbuild", 60.0), ("the AnsNet", 100.0)]
    # For as much compute as ours, direct distillation would be the better small one.
    cheap = frontier(rows, [ours, replace(direct, flops=50)])
    expected = [("direct", 60.0, pytest.approx(1.05)), ("direct", 110.0, 1.0)]
    assert [(row.way, row.size, row.package_bits) for row in cheap] == expected
