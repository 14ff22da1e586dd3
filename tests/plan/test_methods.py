"""How a DesNet is made of its anchors: what of it a step is told, and what is refused before anything is built."""

from __future__ import annotations

import pytest

from colbuild.errors import SpecError
from colbuild.plan.lock.named_sources import source_uris
from tests.helpers.steps import work_of
from tests.plan.families import DISTILL, chain, graph, load, refusal

SPEC = "specs/family.yaml"
ANCHORS = "    - {name: large, params: 103M}\n    - {name: small, shape: {layers: 20, ffn: 1024}}\n"
PLAIN = DISTILL + "elastic: null\n"
SEGMENT = DISTILL + "elastic: {form: segment}\n"


def made(tmp_path, interpolate, shape="layers: 21, ffn: 1088", **parts):
    """The step that makes a DesNet by an `interpolate`."""
    desnets = f"  - {{name: x, shape: {{{shape}}}, interpolate: {interpolate}}}\n"
    found = graph(tmp_path, anchors=ANCHORS, desnets=desnets, **parts)
    return next(step for step in found.steps if step.op == "interpolate"), found


@pytest.mark.parametrize(
    ("interpolate", "told"),
    [
        ("{}", {"method": "group_alpha", "tokens": 4096}),
        ("{method: global_alpha}", {"method": "global_alpha", "tokens": 4096}),
        ("{method: global_alpha, fill: zero, tokens: 2k}", {"method": "global_alpha", "fill": "zero", "tokens": 2000}),
        ("{method: global_alpha, alpha: distance}", {"method": "global_alpha", "alpha": "distance"}),
        ("{method: global_alpha, alpha: 1}", {"method": "global_alpha", "alpha": 1.0}),
        ("{method: subset, tokens: 2k}", {"method": "subset"}),
        ("{method: expand, fill: copy}", {"method": "expand", "fill": "copy"}),
        ("{method: random}", {"method": "random"}),
        ("{method: random, seed: 3}", {"method": "random", "seed": 3}),
        ("{method: layer_alpha, tokens: 8k}", {"method": "layer_alpha", "tokens": 8000}),
    ],
)
def test_a_step_is_told_what_decides_its_result_and_nothing_else(tmp_path, interpolate, told):
    step, found = made(tmp_path, interpolate)
    params = dict(step.params)
    scored = "tokens" in told
    assert (params.pop("split", None) is not None) == scored == ("corpus" in step.inputs)
    assert params.pop("shape")["ffn"] == 1088
    assert params == told
    assert set(told) <= set(found.origins[step.id])


@pytest.mark.parametrize(
    ("interpolate", "needs"),
    [
        ("{}", True),
        *((f"{{method: {method}}}", True) for method in ("global_alpha", "layer_alpha", "expand")),
        *((f"{{method: {method}}}", False) for method in ("subset", "random", "uniform")),
        ("{method: subset, refit: auto}", False),
        ("{method: global_alpha, alpha: 0}", False),
        ("{method: global_alpha, alpha: 0.1}", True),
        ("{method: expand, fill: zero}", True),
    ],
)
def test_an_anchor_that_a_strategy_does_not_read_is_not_waited_for_nor_built(tmp_path, interpolate, needs):
    step, found = made(tmp_path, interpolate)
    assert ("smaller" in step.inputs) == needs
    assert ("distill small" in {step.id for step in found.steps}) == needs


@pytest.mark.parametrize("form", ["anchor", "segment"])
def test_an_elastic_anchor_above_a_subset_trains_down_to_the_anchor_that_is_not_built(tmp_path, form):
    _, found = made(tmp_path, "{method: subset}", distill=DISTILL + f"elastic: {{form: {form}}}\n")
    large = next(step for step in found.steps if step.id == "distill large")
    interval = large.params.get("interval")
    assert (interval and (interval["layers"], interval["ffn"])) == ((20, 1024) if form == "anchor" else None)


def test_a_mixture_that_is_given_is_work_for_the_disk(tmp_path):
    step, _ = made(tmp_path, "{method: expand}")
    family = chain(tmp_path, anchors=ANCHORS, desnets="  - {name: x, shape: {layers: 21, ffn: 1088}}\n")
    desnet, larger, smaller = (getattr(family.desnets[0], name).structure for name in ("member", "larger", "smaller"))
    work = work_of(step.op, step.params, {"larger": larger, "smaller": smaller}, desnet)
    assert work.flops is None
    assert work.bytes == work.disk > 0


@pytest.mark.parametrize(
    ("interpolate", "problem"),
    [
        ("{method: alpha}", "'method' cannot be 'alpha': it can be group_alpha, global_alpha, layer_alpha, nested"),
        ("{fill: zero}", "'fill' belongs to global_alpha and expand, not to group_alpha"),
        ("{method: expand, alpha: 0.5}", "'alpha' belongs to global_alpha, not to expand"),
        ("{method: global_alpha, alpha: 1.5}", "'alpha' must be auto, distance or a number from 0 to 1, not 1.5"),
        ("{method: global_alpha, alpha: half}", "'alpha' must be auto, distance or a number from 0 to 1, not 'half'"),
        ("{method: global_alpha, fill: ones}", "'fill' cannot be 'ones': it can be donor, zero, copy"),
        ("{method: random, seed: -1}", "'seed'"),
    ],
)
def test_values_that_mean_nothing_are_told_at_their_place(tmp_path, interpolate, problem):
    with pytest.raises(SpecError, match=rf"1 problem in the spec\s+{SPEC}:13:") as found:
        load(tmp_path, desnets=f"  - {{name: x, params: 88M, interpolate: {interpolate}}}\n")
    assert problem in found.value.message


def test_patch_of_other_widths_is_refused_with_a_shape_that_it_can_make(tmp_path):
    desnets = "  - {name: x, shape: {layers: 22, ffn: 1088}, interpolate: {method: patch}}\n"
    [problem] = refusal(tmp_path, anchors=ANCHORS, desnets=desnets)
    assert problem.startswith(f"{SPEC}:13:69: method: patch adds layers to anchor 'small', and 'x' is not as wide")
    assert "ffn 1088 instead of 1024" in problem
    assert problem.endswith("write shape: {layers: 22, hidden: 576, ffn: 1024, heads: 9}")
    step, _ = made(tmp_path, "{method: patch}", shape="layers: 22, hidden: 576, ffn: 1024, heads: 9")
    assert step.params["method"] == "patch"


def test_nested_needs_a_segment_below_it(tmp_path):
    desnets = "  - {name: x, shape: {layers: 21, ffn: 1088}, interpolate: {method: nested}}\n"
    for recipe in (PLAIN, DISTILL + "elastic: {form: anchor}\n"):
        [problem] = refusal(tmp_path, anchors=ANCHORS, desnets=desnets, distill=recipe)
        assert problem.startswith(f"{SPEC}:13:69: method: nested needs a nested student, and anchor 'small'")
        assert "write elastic: {form: segment} in the recipe of anchor 'small'" in problem
    step, _ = made(tmp_path, "{method: nested}", distill=SEGMENT)
    assert step.params["method"] == "nested"


# -- anchors that start from a checkpoint ------------------------------------------------------------------------------

STARTED = "    - {name: large, params: 103M, elastic: null}\n    - {name: small, shape: {layers: 20, ffn: 1024}, %s}\n"
DESNET = "  - {name: x, shape: {layers: 21, ffn: 1088}}\n"


def test_an_anchor_that_starts_from_a_checkpoint_is_aligned_with_its_teacher(tmp_path):
    init = "init: {checkpoint: ./small-model, align: procrustes, tokens: 2k}"
    found = graph(tmp_path, anchors=STARTED % init, desnets=DESNET, distill=PLAIN)
    steps = {step.id: step for step in found.steps}
    assert steps["source small"].sources == {"raw": "./small-model"}
    align = steps["align small"]
    assert align.inputs == {"model": "source small", "teacher": "distill large", "corpus": "corpus train"}
    assert {key: align.params[key] for key in ("align", "tokens", "split")} == {
        "align": "procrustes",
        "tokens": 2000,
        "split": "train",
    }
    assert (align.params["shape"]["layers"], align.params["shape"]["ffn"]) == (20, 1024)
    assert steps["distill small"].inputs["start"] == "align small"
    assert "start" not in steps["distill large"].inputs
    without = {step.id: step for step in graph(tmp_path, anchors=ANCHORS, desnets=DESNET, distill=PLAIN).steps}
    assert without["distill small"].params == steps["distill small"].params
    assert found.models["small"] == "distill small"


def test_the_checkpoint_is_a_source_of_the_family(tmp_path):
    init = "init: {checkpoint: ./small-model}"
    loaded = load(tmp_path, anchors=STARTED % init, desnets=DESNET, distill=PLAIN)
    assert "./small-model" in source_uris(loaded.family)
    assert loaded.family.anchors[1].init.align == "permute"


@pytest.mark.parametrize(
    ("anchor", "distill", "problem"),
    [
        (
            "name: small, params: 80M, init: {checkpoint: ./m}",
            PLAIN,
            "'small' starts from a checkpoint and has its shape, so 'params' is not allowed",
        ),
        (
            "name: small, shape: {layers: 20}, init: {checkpoint: ./m}",
            SEGMENT,
            "'small' starts from a checkpoint, but a segment starts from the teacher",
        ),
        ("name: small, shape: {layers: 20}, init: {align: permute}", PLAIN, "'checkpoint' is missing"),
        (
            "name: small, shape: {layers: 20}, init: {checkpoint: ./m, align: rotate}",
            PLAIN,
            "'align' cannot be 'rotate': it can be permute, procrustes, none",
        ),
        ("name: small, shape: {layers: 20}, init: {checkpoint: m}", PLAIN, "'checkpoint'"),
    ],
)
def test_starts_that_cannot_be_are_told_at_their_place(tmp_path, anchor, distill, problem):
    with pytest.raises(SpecError) as found:
        load(tmp_path, anchors=f"    - {{{anchor}}}\n", desnets=DESNET, distill=distill)
    assert f"{SPEC}:10:" in found.value.message
    assert problem in found.value.message
