"""A precision is one row of `PRECISIONS`: a row that a test adds is validated, planned, exported and verified."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import get_args

import pytest

from colbuild.arch import read_structure
from colbuild.export.package.verify import verify_package
from colbuild.export.rounding import fitting
from colbuild.plan.drawing.build_graph import build_graph
from colbuild.plan.shapes import package_size
from colbuild.plan.shapes.chain import resolve_chain
from colbuild.plan.shapes.package_size import package_bytes
from colbuild.spec import load_family
from colbuild.spec.model.device import Device, Kind, Profile
from colbuild.spec.model.precision import COMPUTING, PRECISIONS, Bound, Precision
from colbuild.spec.project.schema import profile_schema
from tests.export.conftest import _forks, tiny_model  # noqa: F401  (fixtures)
from tests.helpers.code_texts import named_in_code
from tests.helpers.configs import SMOLLM2
from tests.helpers.project import ROOT
from tests.helpers.steps import run_step
from tests.spec.projects import problems, project

COARSE = Precision("int8-other", 8, "onnx/model_int8.onnx", Bound("relative_error", 0.3), packed=0.0)
PLAIN = Precision("int4-plain", 4, "onnx/model_plain4.onnx", Bound("relative_error", 1.5), packed=1.7)
SPEC = """\
apiVersion: colbuild/v1
name: added
ansnet: {source: ./ansnet}
data: {train: {source: ./corpus.txt}}
chain:
  recipe: recipes/distill.yaml
  anchors: [{name: large, shape: {layers: 5, ffn: 128}}, {name: small, shape: {layers: 2, ffn: 96}}]
desnets: [{name: same, shape: {layers: 5, ffn: 128}, exports: [other]}]
"""


@pytest.fixture(params=[COARSE, PLAIN], ids=lambda row: row.name)
def added(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Precision:
    monkeypatch.setitem(PRECISIONS, request.param.name, request.param)
    return request.param


def test_a_row_that_is_added_is_planned_and_exported_to_a_sound_package(added, tiny_model, tmp_path):  # noqa: F811
    for name, text in {
        "specs/family.yaml": SPEC,
        "recipes/distill.yaml": "tokens: 4k\n",
        "exports/other.yaml": f"precision: {added.name}\ncontext: 64\nlimits: {{max_package: 2MB}}\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    loaded = load_family(tmp_path / "specs/family.yaml")
    structure = read_structure(json.loads((tiny_model / "config.json").read_text()))
    graph = build_graph(loaded.family, resolve_chain(loaded, structure), {"onnx": "1"})
    [step] = [step for step in graph.steps if step.op == "export"]
    assert step.params["profile"]["precision"] == added.name

    package = tmp_path / "package"
    package.mkdir()
    run_step("export", {"model": tiny_model}, step.params, package)
    found = verify_package(package)
    assert (found.problems, found.manifest.graph.file) == ((), added.graph)
    profile = loaded.family.desnets[0].exports[0]
    size = package_bytes(structure, profile, (package / "tokenizer.json").stat().st_size)
    assert found.size <= size <= found.size + 90_000


def test_a_row_that_is_added_is_suggested_and_listed(added, tmp_path):
    [problem] = problems(tmp_path, exports__phone_int8="precision: " + added.name[:-1])
    assert problem.endswith(f", {added.name} = did you mean {added.name}?")
    assert profile_schema()["properties"]["precision"]["enum"] == list(PRECISIONS)


def test_a_fitted_row_that_is_added_takes_what_fitted_profiles_say(monkeypatch, tmp_path):
    monkeypatch.setitem(PRECISIONS, "own4", replace(PRECISIONS["int4"], name="own4"))
    profile = "precision: own4\nembedding_bits: 4\nkeep_8bit: [first]\nrecover: quantised\n"
    desnet = load_family(project(tmp_path, exports__phone_int8=profile)).family.desnets[0]
    assert desnet.exports[0].fitted
    [told] = problems(tmp_path, exports__phone_int8="keep_8bit: [first]")
    assert "'keep_8bit' is for precision: int4 and own4, and this profile's is fp32" in told


@pytest.mark.parametrize("name", PRECISIONS)
def test_a_row_fits_together(name):
    row = PRECISIONS[name]
    assert row.name == name
    assert row.smaller is None or PRECISIONS[row.smaller].bits < row.bits
    assert row.fitted or not row.measured
    profile = {"precision": name, "limits": {"max_package": "1GB"}}
    assert Device.model_validate(profile).stored is row


def test_fewer_bits_make_smaller_packages():
    structure = read_structure(SMOLLM2)
    sizes = {
        row.bits: package_bytes(structure, Profile.model_validate({"name": "p", "precision": row.name}), 0)
        for row in PRECISIONS.values()
        if not row.measured
    }
    assert sorted(sizes, key=lambda bits: sizes[bits]) == sorted(sizes)


def test_the_documentation_has_a_row_for_each_precision():
    page = (ROOT / "docs/packages.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| `(.+?)` \| (\d+)(.*?) \| `(.+?)` \| .*?(difference|relative error) of ([\d.]+)", page, re.MULTILINE
    )
    measures = {"difference": "max_difference", "relative error": "relative_error"}
    told = [(name, int(bits), graph, measures[kind], float(most)) for name, bits, _, graph, kind, most in rows]
    assert told == [(row.name, row.bits, row.graph, row.bound.measure, row.bound.most) for row in PRECISIONS.values()]
    assert [bool(fitted) for _, _, fitted, *_ in rows] == [row.fitted for row in PRECISIONS.values()]
    lying = re.search(r"## Files of a package\n\n```\n(.*?)```", page, re.DOTALL)
    assert lying is not None
    assert [line.split()[0] for line in lying[1].splitlines() if line.startswith("onnx/")] == [
        *dict.fromkeys(row.graph for row in PRECISIONS.values())
    ]


def test_each_kind_of_matrix_that_keeps_8_bits_is_counted_and_found():
    assert set(get_args(Kind)) - {"first", "last"} == set(package_size._KINDS) == set(fitting.KINDS)


TABLE = "colbuild/spec/model/precision.py"
NAMES = re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, {*PRECISIONS, *COMPUTING}))})(?![\w-])")
ALLOWED = {
    "colbuild/spec/model/device.py": {"fp32"},  # the default of a profile
    "colbuild/spec/model/recipe.py": {"bf16"},  # the default of a recipe
    "colbuild/train/fused/kernels.py": {"fp32", "bf16"},  # parts of the names of functions in kernels.cpp
}


def test_no_module_but_the_table_names_a_precision():
    named = named_in_code(NAMES)
    assert named.pop(TABLE) == {*PRECISIONS, *COMPUTING}
    assert named == ALLOWED
