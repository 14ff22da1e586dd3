"""Every shape of a family is solved, every DesNet finds its neighbours, and what cannot be is told where it was written."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colbuild.arch.solving import TOLERANCE, contains
from colbuild.plan.shapes.chain import resolve_chain
from colbuild.plan.shapes.members import ANSNET as TOP
from tests.plan.families import ANCHORS, ANSNET, chain, load, refusal

ANSNET_SIZE = 134_515_008


def placed(solved):
    """DesNet -> the names of its neighbours; None below one that equals a member."""
    return {
        desnet.member.name: (desnet.larger.name, desnet.smaller.name if desnet.smaller else None)
        for desnet in solved.desnets
    }


def one(tmp_path, desnet, anchors=ANCHORS):
    """The only DesNet of a family, placed."""
    return chain(tmp_path, anchors=anchors, desnets=f"  - {desnet}\n").desnets[0]


def test_desnets_lie_between_neighbours_by_size_and_by_shape(tmp_path):
    solved = chain(tmp_path)
    assert placed(solved) == {"phone": ("a100", "a76"), "kiosk": ("a100", "a76"), "watch": ("a76", None)}
    assert solved.ansnet.name == TOP
    assert solved.ansnet.parameters == ANSNET_SIZE
    assert [anchor.name for anchor in solved.anchors] == ["a100", "a76"]
    phone, kiosk, watch = (desnet.member for desnet in solved.desnets)
    assert phone.parameters == pytest.approx(88e6, rel=TOLERANCE)
    assert (kiosk.structure.shape.layers, kiosk.structure.shape.ffn) == (22, 1152)
    assert kiosk.structure.shape.hidden == ANSNET.shape.hidden
    assert watch.structure == solved.anchors[1].structure


def test_neighbours_of_a_large_desnet_are_ansnet_and_first_anchor(tmp_path):
    desnet = one(tmp_path, "{name: big, params: 120M}")
    assert (desnet.larger.name, desnet.smaller.name) == (TOP, "a100")


@pytest.mark.parametrize(
    ("size", "why"),
    [
        ("params: 103M", "the size that the anchor was asked for"),
        ("params: 102989376", "the size that the anchor has"),
        ("params: 103.05M", "the anchor's shape is the legal one nearest to it"),
        ("shape: {layers: 24, ffn: 1288}", "the anchor's shape"),
    ],
)
def test_desnet_equal_to_an_anchor_has_no_second_neighbour(tmp_path, size, why):
    desnet = one(tmp_path, f"{{name: same, {size}}}")
    assert (desnet.larger.name, desnet.smaller) == ("a100", None), why
    assert desnet.member.structure == desnet.larger.structure


def test_desnet_a_hair_below_the_chain_is_its_last_anchor(tmp_path):
    desnet = one(tmp_path, "{name: same, params: 75.99M}")
    assert (desnet.larger.name, desnet.smaller, desnet.member.parameters) == ("a76", None, 76_137_408)


@pytest.mark.parametrize("size", [f"params: {ANSNET_SIZE}", "shape: {}"])
def test_desnet_may_equal_the_ansnet(tmp_path, size):
    desnet = one(tmp_path, f"{{name: whole, {size}}}")
    assert (desnet.larger.name, desnet.smaller) == (TOP, None)


@settings(max_examples=40, deadline=None)
@given(targets=st.lists(st.integers(76_200_000, ANSNET_SIZE), min_size=1, max_size=4))
def test_every_size_inside_the_chain_is_met_and_nests(tmp_path_factory, targets):
    loaded = load(tmp_path_factory.mktemp("family"))
    model = loaded.family.desnets[0]
    desnets = tuple(model.model_copy(update={"name": f"d{i}", "params": size}) for i, size in enumerate(targets))
    solved = resolve_chain(replace(loaded, family=loaded.family.model_copy(update={"desnets": desnets})), ANSNET)
    for desnet, target in zip(solved.desnets, targets, strict=True):
        shape = desnet.member.structure.shape
        assert desnet.member.parameters == pytest.approx(target, rel=TOLERANCE)
        assert contains(desnet.larger.structure.shape, shape)
        assert (shape == desnet.larger.structure.shape) == (desnet.smaller is None)
        if desnet.smaller is not None:
            assert contains(shape, desnet.smaller.structure.shape)
            assert shape != desnet.smaller.structure.shape


# -- anchors that are not needed, and gaps ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "built"),
    [
        ("params: 134515008", ""),
        ("params: 103M", "a100"),
        ("params: 120M", "a100"),
        ("params: 90M", "a100 a76"),
        ("params: 32M", "a76 a32"),
    ],
)
def test_only_anchors_on_the_way_to_a_desnet_are_built(tmp_path, size, built):
    anchors = ANCHORS + "    - {name: a32, params: 32M}\n    - {name: a20, params: 20M}\n"
    solved = chain(tmp_path, anchors=anchors, desnets=f"  - {{name: only, {size}}}\n")
    assert " ".join(step.student.name for step in solved.route) == built
    assert len(solved.route) + len(solved.unbuilt) == len(solved.anchors) == 4


FAR = "    - {name: a100, params: 103M}\n    - {name: a30, params: 30M}\n"
INSIDE = "  - {name: x, params: 60M}\n"


def test_a_gap_that_is_too_wide_names_the_anchor_that_closes_it(tmp_path):
    [problem] = refusal(tmp_path, anchors=FAR, desnets=INSIDE)
    assert problem == (
        "specs/family.yaml:11:27: no route reaches anchor 'a30' (30.0M): anchor 'a100' (103.0M) is 3.43 times larger, "
        "and the limit is 2.5 times\n"
        "   |\n11 |     - {name: a30, params: 30M}\n   |                           ^^^\n"
        "   = allow it with max_gap: 3.44 in 'chain', or add an anchor between the two: - {name: a56, params: 56M}"
    )


def test_a_gap_below_what_is_needed_is_nobodys_concern(tmp_path):
    solved = chain(tmp_path, anchors=FAR, desnets="  - {name: x, params: 110M}\n")
    assert [step.student.name for step in solved.route] == ["a100"]
    assert solved.warnings == ()


@pytest.mark.parametrize("route", ["cheapest", "stepwise"])
def test_a_gap_may_be_allowed_and_is_then_warned_of(tmp_path, route):
    [problem] = refusal(tmp_path, anchors=f"{FAR}  route: {route}\n", desnets=INSIDE)
    rule = re.search(r"max_gap: [0-9.]+", problem)
    assert rule is not None
    [warning] = chain(tmp_path, anchors=f"{FAR}  {rule[0]}\n  route: {route}\n", desnets=INSIDE).warnings
    assert warning.startswith("anchor 'a30' is 3.4 times smaller than its teacher, anchor 'a100'; beyond 2.5")


def test_a_limit_that_is_stricter_than_the_default_holds_as_well(tmp_path):
    [problem] = refusal(tmp_path, anchors=f"{ANCHORS}  max_gap: 1.31\n")
    assert "anchor 'a100' (103.0M) is 1.35 times larger, and the limit is 1.31 times" in problem


def mended(anchors, problems):
    """The anchors with every proposal pasted above the anchor that its problem is about."""
    for problem in problems:
        below = re.search(r"no route reaches anchor '([^']+)'", problem)[1]
        proposed = "".join(
            f"    {line}\n" for line in re.findall(r"- \{name: a[^\n]*", problem.rsplit("between the two:")[1])
        )
        assert proposed
        anchors = anchors.replace(f"    - {{name: {below},", f"{proposed}    - {{name: {below},")
    return anchors


@pytest.mark.parametrize(
    ("anchors", "desnets"),
    [
        (FAR, INSIDE),
        ("    - {name: a10, params: 10M}\n", "  - {name: x, params: 11M}\n"),
        ("    - {name: a50, params: 50M}\n    - {name: A18, params: 18M}\n", "  - {name: a30, params: 19M}\n"),
        ("    - {name: s, shape: {layers: 8, ffn: 256}}\n", "  - {name: x, params: 60M}\n"),
        ("    - {name: s, shape: {layers: 6, ffn: 1536}}\n", "  - {name: x, shape: {layers: 12}}\n"),
        (
            "    - {name: s, shape: {layers: 30, ffn: 64}}\n  max_gap: 1.6\n",
            "  - {name: x, shape: {layers: 30, ffn: 600}}\n",
        ),
        ("    - {name: s, shape: {layers: 8, ffn: 512}}\n", "  - {name: x, shape: {layers: 8, ffn: 1536}}\n"),
        (f"{ANCHORS}  max_gap: 1.2\n", "  - {name: x, params: 80M}\n"),
    ],
    ids=["one", "two", "gaps and names", "by hand", "shallow", "narrow", "off the line", "strict"],
)
def test_anchors_that_close_gaps_work_when_they_are_pasted(tmp_path, anchors, desnets):
    fixed = mended(anchors, refusal(tmp_path, anchors=anchors, desnets=desnets))
    assert chain(tmp_path, anchors=fixed, desnets=desnets).warnings == ()


def test_a_gap_that_only_very_many_anchors_would_close_asks_for_a_wider_limit(tmp_path):
    [*problems] = refusal(tmp_path, anchors=f"{FAR}  max_gap: 1.001\n", desnets="  - {name: x, params: 30M}\n")
    assert [problem.rsplit("= ")[1] for problem in problems] == [
        "allow it with max_gap: 1.31 in 'chain'",
        "allow it with max_gap: 3.44 in 'chain'",
    ]


# -- refusals ---------------------------------------------------------------------------------------------------------


def test_desnet_below_the_chain_names_the_anchor_to_add(tmp_path):
    [problem] = refusal(tmp_path, desnets="  - {name: tiny, params: 50M}\n")
    assert problem == (
        "specs/family.yaml:13:26: DesNet 'tiny' (50.0M) is outside the chain: smaller than anchor 'a76', its last link "
        "(76.1M)\n"
        "   |\n13 |   - {name: tiny, params: 50M}\n   |                          ^^^\n"
        "   = add an anchor of at most 50.0M: - {name: a50, params: 50M}"
    )


@pytest.mark.parametrize("size", ["50M", "75.3M", "50060000", "41234567", "20M", "6M"])
@pytest.mark.parametrize("name", ["tiny", "A50", "a20"])
def test_anchors_to_add_work_when_they_are_pasted(tmp_path, size, name):
    desnets = f"  - {{name: {name}, params: {size}}}\n"
    [problem] = refusal(tmp_path, desnets=desnets)
    lines = re.findall(r"- \{[^\n]*", problem.rsplit("   = add", 1)[1])
    solved = chain(tmp_path, anchors=ANCHORS + "".join(f"    {line}\n" for line in lines), desnets=desnets)
    assert solved.desnets[0].larger is solved.anchors[-1]
    assert len(solved.anchors) == 2 + len(lines)


def test_a_desnet_that_no_few_anchors_lead_to_is_told_so(tmp_path):
    [problem] = refusal(tmp_path, desnets="  - {name: tiny, params: 100k}\n")
    assert problem.endswith("= ask for a larger size: no short chain of anchors reaches this one")


def test_shape_below_the_chain_tells_the_lengths_of_the_anchor_to_add(tmp_path):
    [problem] = refusal(tmp_path, desnets="  - {name: tiny, shape: {layers: 3, ffn: 128}}\n")
    assert problem.startswith("specs/family.yaml:13:18: DesNet 'tiny'")
    assert "outside the chain: smaller than anchor 'a76', its last link" in problem
    assert problem.endswith("with at most these lengths: layers 3, hidden 576, ffn 128, heads 9")


def test_desnet_larger_than_the_ansnet_is_refused(tmp_path):
    [problem] = refusal(tmp_path, desnets="  - {name: huge, params: 200M}\n")
    assert problem.startswith("specs/family.yaml:13:26: DesNet 'huge' (200.0M) is larger than the AnsNet (134.5M)")


def test_shape_between_no_two_neighbours_says_which_axis_is_wrong(tmp_path):
    [problem] = refusal(tmp_path, desnets="  - {name: odd, shape: {layers: 29, ffn: 1000}}\n")
    assert "is not between two members of the chain: ffn 1000 is less than the 1288 of anchor 'a100'" in problem
    assert (
        "keep every axis between those of anchor 'a100' (layers 24, hidden 576, ffn 1288, heads 9) and the AnsNet"
        in problem
    )


@pytest.mark.parametrize(
    ("shape", "place", "reason"),
    [
        ("layers: 31", "13:33", "layers 31 is more than the AnsNet's 30"),
        ("ffn: 1600", "13:30", "ffn 1600 is more than the AnsNet's 1536"),
        ("hidden: 570", "13:33", "hidden 570 is not a multiple of heads 9"),
        (
            "heads: 6",
            "13:17",
            "6 heads for 3 kv_heads: the AnsNet has 3 heads for each kv head, and a subset keeps this ratio",
        ),
    ],
)
def test_illegal_shape_is_refused_at_its_axis(tmp_path, shape, place, reason):
    [problem] = refusal(tmp_path, desnets=f"  - {{name: odd, shape: {{{shape}}}}}\n")
    assert problem.startswith(f"specs/family.yaml:{place}: 'odd': {reason}")


@pytest.mark.parametrize(
    ("anchors", "place", "message"),
    [
        (
            "{name: a76, params: 76M}|{name: a100, params: 103M}",
            "11:28",
            "anchor 'a100' (103.0M) must be smaller than the anchor before it, anchor 'a76' (76.1M)",
        ),
        (
            "{name: a1, params: 103M}|{name: a2, params: 103M}",
            "11:26",
            "anchor 'a2' (103.0M) must be smaller than the anchor before it, anchor 'a1' (103.0M)",
        ),
        (
            "{name: a1, params: 103M}|{name: a2, params: 102.98M}",
            "11:26",
            "anchor 'a2' (103.0M) would have the shape of anchor 'a1'",
        ),
        (
            "{name: a1, shape: {layers: 20}}|{name: a2, shape: {layers: 20}}",
            "11:18",
            "anchor 'a2' does not fit inside anchor 'a1'",
        ),
        (
            "{name: a1, shape: {ffn: 1024}}|{name: a2, shape: {layers: 12}}",
            "11:18",
            "anchor 'a2' does not fit inside anchor 'a1': ffn 1536 is more than the 1024",
        ),
        ("{name: a1, shape: {}}", "10:18", "anchor 'a1' does not fit inside the AnsNet: the shapes are equal"),
        ("{name: a200, params: 200M}", "10:28", "anchor 'a200' (200.0M) is not smaller than the AnsNet (134.5M)"),
        ("{name: a0, params: 100k}", "10:26", "anchor 'a0': no shape has 100,000 parameters within 1%"),
    ],
)
def test_anchors_that_make_no_chain_are_refused(tmp_path, anchors, place, message):
    text = "".join(f"    - {anchor}\n" for anchor in anchors.split("|"))
    [problem] = refusal(tmp_path, anchors=text, desnets="  - {name: x, params: 110M}\n")
    assert problem.startswith(f"specs/family.yaml:{place}: {message}")


def test_all_problems_are_told_at_once_in_the_order_of_the_file(tmp_path):
    desnets = "  - {name: huge, params: 200M}\n  - {name: fine, params: 90M}\n  - {name: odd, shape: {layers: 31, ffn: 1600}}\n"
    found = refusal(tmp_path, desnets=desnets + "  - {name: tiny, params: 1M}\n")
    assert [text.split(":", 3)[1] for text in found] == ["13", "15", "15", "16"]
    anchors = "    - {name: a200, params: 200M}\n    - {name: a50, params: 50M}\n    - {name: a60, params: 60M}\n"
    assert [text.split("'")[1] for text in refusal(tmp_path, anchors=anchors)] == ["a200", "a60"]
