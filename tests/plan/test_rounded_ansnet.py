"""The AnsNet in fewer bits stands beside the family, and is called better only where both were measured."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from colbuild.plan.cost.ansnet_reads import Reads
from colbuild.plan.family_plan import open_workspace
from colbuild.plan.planning import make_plan
from colbuild.plan.shapes.rounded_ansnet import Measured, Package, alternatives
from colbuild.report.screen.alternatives_view import form_cells, forms_line, remarks
from colbuild.run.building.ansnet_forms import planned_alternatives
from colbuild.spec.model.device import Profile
from tests.helpers.configs import SMOLLM2
from tests.plan.families import ANSNET, load

TOKENIZER = 1_563_439
NEVER_ASKED = pytest.fail
ANSNET_INT4 = Profile(name="watch", precision="int4")


def found(packages, profiles=(), measured=lambda _: None):
    return alternatives(ANSNET, profiles, packages, context=2048, tokenizer=TOKENIZER, measured=measured)


def package(name="phone/phone-int8", size=103_600_000, *, built=True, bits_per_byte=None):
    return Package(name, size, built, lambda: bits_per_byte)


@pytest.mark.parametrize(
    ("form", "built"), [("int8", 153_600_000), ("int4", 102_232_444), ("4 bits in all", 88_520_599)]
)
def test_the_forms_of_smollm2_are_met_within_two_thousandths(form, built):
    sizes = {one.form: one.size for one in found(()).forms}
    assert built <= sizes[form] <= built * 1.002


def test_what_is_not_measured_is_compared_by_size_alone_with_a_hint():
    told = found([Package("phone/phone-int8", 103_600_000, True, lambda: NEVER_ASKED("nothing to compare it with"))])
    [reached] = told.reached
    assert (reached.form, reached.ansnet_is_better) == ("int4", None)
    [line] = remarks(told)
    assert line.startswith("The AnsNet at int4 takes at most 102.3 MB; phone/phone-int8 103.6 MB.")
    assert line.endswith("add a profile with precision: int4 to the AnsNet's 'exports'.")


def test_a_measured_ansnet_is_better_or_not():
    profiles, size = [ANSNET_INT4], 102_232_444
    told = found([package(bits_per_byte=1.460)], profiles, lambda _: Measured(size, 1.122, 0.66))
    assert told.reached[0].ansnet_is_better
    assert list(remarks(told)) == [
        "If 102.2 MB fit, the AnsNet at int4 is better: 1.122 bits/byte; phone/phone-int8 (103.6 MB) has 1.460."
    ]
    worse = found([package(bits_per_byte=1.1)], profiles, lambda _: Measured(size, 1.122, 0.66))
    assert worse.reached[0].ansnet_is_better is False
    assert not list(remarks(worse))
    assert form_cells(told.forms[1])[4:] == ("1.122", "66%", "–", "102.2 MB  watch")


def test_a_package_that_is_still_to_be_built_is_measured_by_the_build():
    told = found([package(built=False)], [ANSNET_INT4], lambda _: Measured(102_232_444, 1.122, 0.66))
    [line] = remarks(told)
    assert line == (
        "The AnsNet at int4 takes 102.2 MB; phone/phone-int8 at most 103.6 MB. The build measures which is better."
    )


def test_smaller_than_every_form_is_said_once():
    assert list(remarks(found([package(size=60_000_000), package(size=50_000_000)]))) == [
        "Every package of a DesNet is smaller than the AnsNet in 4 bits."
    ]
    assert not list(remarks(found([])))


def test_many_packages_are_counted():
    [line] = remarks(found([package(name=f"d{number}/phone") for number in range(5)]))
    assert "d2/phone 103.6 MB and 2 more." in line


def test_a_precision_that_is_no_form_is_a_form_of_its_own():
    mixed = Profile(name="mixed", precision="int4-mixed", limits={"max_package": 105_000_000})
    told = found([package(size=104_000_000, bits_per_byte=1.3)], [mixed], lambda _: Measured(104_800_000, 1.11, 0.7))
    assert [form.form for form in told.forms] == ["int8", "int4-mixed", "int4", "4 bits in all"]
    assert (told.reached[0].form, told.reached[0].ansnet_is_better) == ("int4-mixed", True)
    assert "int4-mixed 104.8 MB" in forms_line(told)


def built_in(tmp_path, **quality):
    """A family whose packages are all built, as small files, and what the plan finds of them."""
    (tmp_path / "ansnet").mkdir()
    (tmp_path / "ansnet/config.json").write_text(json.dumps(SMOLLM2))
    (tmp_path / "corpus.txt").write_text("A lamp by the sea.\n" * 1000)
    loaded = load(
        tmp_path,
        ansnet="{source: ./ansnet, exports: [phone-int8]}",
        desnets="  - {name: phone, params: 88M, exports: [phone-int8]}\n",
        data="  train: {source: ./corpus.txt, heldout: 0.1}\n",
    )
    plan = make_plan(loaded, open_workspace(loaded))
    for step in plan.steps:
        folder = tmp_path / "results" / step.step.id
        folder.mkdir(parents=True)
        if step.step.op == "export":
            files = [{"path": "onnx/model_quantized.onnx", "size": 90_000_000}, {"path": "tokenizer.json", "size": 7}]
            told = {"increase": 0.01, "top1_agreement": 0.9, **quality}
            (folder / "manifest.json").write_text(json.dumps({"files": files, "quality": told}))
        if step.step.op == "evaluate":
            worse = 0.0 if step.step.name == "ansnet" else 0.4
            (folder / "metrics.json").write_text(json.dumps({"bits_per_byte": 1.0 + worse, "perplexity": 16.0}))
    steps = tuple(replace(step, output=step.step.id) for step in plan.steps)
    workspace = SimpleNamespace(store=SimpleNamespace(files=lambda output: tmp_path / "results" / output))
    return planned_alternatives(replace(plan, steps=steps), workspace)


def test_sizes_and_quality_come_from_what_is_built(tmp_path):
    told = built_in(tmp_path)
    int8 = next(form for form in told.forms if form.form == "int8")
    assert int8.built
    assert 90_000_007 < int8.size < 90_001_000
    # 1% more perplexity of a model with 4 bits a token and 1 bit a byte.
    assert int8.bits_per_byte == pytest.approx(1.0 + 0.01435 / 4, abs=1e-4)
    [reached] = told.reached
    assert reached.ansnet_is_better
    assert reached.bits_per_byte == pytest.approx(1.4 * (1 + 0.01435 / 4), abs=1e-4)
    # The tokenizer of a built package counts in forms that are not built.
    assert next(form.size for form in told.forms if form.form == "int4") == pytest.approx(100_700_000, rel=2e-3)


@pytest.mark.parametrize("damage", [{"increase": "much"}, {"increase": -2}, {"top1_agreement": None}])
def test_a_damaged_package_counts_as_not_built(tmp_path, damage):
    told = built_in(tmp_path, **damage)
    assert not any(form.built for form in told.forms)


@pytest.mark.parametrize(("chain", "cheaper"), [(100, "chain"), (238, "equal"), (1000, "direct")])
def test_which_is_cheaper_has_a_name(chain, cheaper):
    assert Reads(1, 1, chain, (1,), 240).cheaper == cheaper
