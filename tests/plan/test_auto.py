"""`anchors: auto` places the fewest anchors that serve every DesNet; `max_package` gives a DesNet the size its device takes."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from colbuild.arch import forward_flops
from colbuild.arch.solving import TOLERANCE, contains
from colbuild.errors import SpecError
from colbuild.plan.drawing.build_graph import build_graph
from colbuild.plan.shapes.chain import resolve_chain
from colbuild.plan.shapes.package_size import package_bytes
from colbuild.plan.shapes.placed_anchors import pinned_anchors
from colbuild.plan.shapes.route import distillation_flops
from colbuild.spec.model.family import ShapeRequest
from tests.plan.families import ANCHORS, ANSNET, VERSIONS, chain, load, project, refusal


def automatic(tmp_path, desnets, rules="", **parts):
    """The chain of a family whose anchors colbuild places."""
    return chain(tmp_path, anchors=f"    auto\n{rules}", desnets=desnets, **parts)


def gaps(solved):
    return [high.parameters / low.parameters for high, low in pairwise((solved.ansnet, *solved.anchors))]


def test_the_smallest_desnet_is_the_last_anchor_and_names_tell_sizes(tmp_path):
    solved = automatic(tmp_path, "  - {name: phone, params: 88M}\n  - {name: watch, params: 76M}\n")
    assert [anchor.name for anchor in solved.anchors] == ["a76"]
    phone, watch = solved.desnets
    assert (phone.larger.name, phone.smaller.name) == ("ansnet", "a76")
    assert (watch.larger.name, watch.smaller) == ("a76", None)
    assert solved.automatic
    assert not chain(tmp_path).automatic


def test_names_of_placed_anchors_are_free(tmp_path):
    solved = automatic(tmp_path, "  - {name: A76, params: 76M}\n")
    assert [anchor.name for anchor in solved.anchors] == ["a76-2"]


def test_a_wide_gap_is_divided_as_often_as_it_must_be_and_no_more(tmp_path):
    solved = automatic(tmp_path, "  - {name: tag, params: 20M}\n")
    assert len(solved.anchors) == 3  # 134.5M / 20M is between 2.5 squared and 2.5 cubed
    assert max(gaps(solved)) <= 2.5
    assert [step.student.name for step in solved.route] == [anchor.name for anchor in solved.anchors]


def test_of_as_few_anchors_the_cheapest_are_taken(tmp_path):
    solved = automatic(tmp_path, "  - {name: tag, params: 30M}\n")
    [first, last] = solved.anchors
    recipe = solved.recipes[0]

    def flops(member):
        return forward_flops(member.structure, recipe.sequence)

    def cost(middle):
        return distillation_flops(recipe.tokens, flops(solved.ansnet), middle) + distillation_flops(
            recipe.tokens, middle, flops(last)
        )

    assert cost(flops(first)) == sum(step.flops for step in solved.route)
    # A smaller first anchor is cheaper, until the AnsNet is too large for it.
    assert 2.45 < solved.ansnet.parameters / first.parameters <= 2.5


@pytest.mark.parametrize("size", ["params: 134515008", "shape: {}", "max_package: 300MB"])
def test_a_desnet_that_is_the_ansnet_needs_no_anchors(tmp_path, size):
    solved = automatic(tmp_path, f"  - {{name: whole, {size}, exports: [phone-int8]}}\n")
    assert solved.anchors == ()
    assert solved.desnets[0].larger == solved.ansnet


def test_shapes_by_hand_that_do_not_nest_have_an_anchor_inside_both(tmp_path):
    desnets = "  - {name: deep, shape: {layers: 28, ffn: 800}}\n  - {name: wide, shape: {layers: 18, ffn: 1400}}\n"
    solved = automatic(tmp_path, desnets)
    [last] = solved.anchors
    assert (last.structure.shape.layers, last.structure.shape.ffn) == (18, 800)
    assert all(desnet.smaller == last for desnet in solved.desnets)


def test_a_chain_leads_past_shapes_by_hand_that_lie_off_the_line(tmp_path):
    desnets = "  - {name: deep, shape: {layers: 30, ffn: 300}}\n  - {name: x, params: 31M}\n"
    solved = automatic(tmp_path, desnets, "  max_gap: 1.4\n")
    assert max(gaps(solved)) <= 1.4
    deep = solved.desnets[0]
    assert contains(deep.larger.structure.shape, deep.member.structure.shape)


def test_shapes_by_hand_that_leave_no_room_for_anchors_are_told(tmp_path):
    desnets = "  - {name: deep, shape: {layers: 30, ffn: 300}}\n  - {name: wide, shape: {layers: 8}}\n"
    [problem] = refusal(tmp_path, anchors="    auto\n  max_gap: 1.9\n", desnets=desnets)
    assert "with no gap wider than max_gap: 1.9" in problem
    assert "every anchor must contain or lie inside each shape in the spec" in problem


@settings(max_examples=20, deadline=None)
@given(
    sizes=st.lists(st.integers(12_000_000, 133_000_000), max_size=3),
    shapes=st.lists(st.tuples(st.integers(2, 30), st.integers(4, 96)), max_size=2),
    max_gap=st.sampled_from([1.6, 2.0, 2.5, 4.0]),
)
def test_every_family_is_served_or_told_why_not(tmp_path_factory, sizes, shapes, max_gap):
    if not sizes and not shapes:
        return
    loaded = load(tmp_path_factory.mktemp("family"), anchors=f"    auto\n  max_gap: {max_gap}\n")
    model = loaded.family.desnets[0]
    asked = [{"params": size} for size in sizes]
    asked += [{"params": None, "shape": ShapeRequest(layers=layers, ffn=ffn * 16)} for layers, ffn in shapes]
    desnets = tuple(model.model_copy(update={"name": f"d{index}", **size}) for index, size in enumerate(asked))
    loaded = replace(loaded, family=loaded.family.model_copy(update={"desnets": desnets}))
    try:
        solved = resolve_chain(loaded, ANSNET)
    except SpecError as error:
        # Only where shapes by hand leave too little room.
        assert shapes and ("no chain of at most" in error.message or "no shape has" in error.message)
        return
    assert all(gap <= max_gap for gap in gaps(solved))
    for larger, smaller in pairwise((solved.ansnet, *solved.anchors)):
        assert contains(larger.structure.shape, smaller.structure.shape)
    for placed, size in zip(solved.desnets, sizes, strict=False):
        assert placed.member.parameters == pytest.approx(size, rel=TOLERANCE)
    assert len(solved.route) == len(solved.anchors)  # none was placed in vain
    assert solved == resolve_chain(loaded, ANSNET)


def test_placed_anchors_have_the_recipe_of_the_chain_and_lead_to_where_auto_stands(tmp_path):
    loaded = load(tmp_path, anchors="    auto\n", desnets="  - {name: watch, params: 76M}\n")
    built = build_graph(loaded.family, resolve_chain(loaded, ANSNET), VERSIONS)
    [distill] = [step for step in built.steps if step.op == "distill"]
    assert (distill.id, distill.params["recipe"]["tokens"]) == ("distill a76", 80_000)
    origins = built.origins[distill.id]
    assert str(loaded.places.nearest(origins[""])).startswith("specs/family.yaml:")
    place = loaded.places.nearest((*origins["recipe"], "loss", "temperature"))
    assert str(place).startswith("recipes/distill.yaml:")


def test_placed_anchors_can_be_pinned(tmp_path):
    loaded = load(tmp_path, anchors="    auto\n", desnets="  - {name: tag, params: 30M}\n  - {name: x, params: 90M}\n")
    solved = resolve_chain(loaded, ANSNET)
    members = [*solved.anchors, *(placed.member for placed in solved.desnets)]
    shapes = {member.name: member.structure.shape for member in reversed(members)}
    anchors = pinned_anchors(loaded.family, shapes, ANSNET)
    again = resolve_chain(replace(loaded, family=loaded.family.model_copy(update={"anchors": anchors})), ANSNET)
    assert again.anchors == solved.anchors
    assert again.automatic
    assert pinned_anchors(load(tmp_path).family, shapes, ANSNET) == ()


@pytest.mark.parametrize(
    ("desnet", "rules", "place", "message"),
    [
        ("{name: x, params: 100k}", "", r"\d+:23", "DesNet 'x': no shape has 100,000 parameters"),
        ("{name: x, params: 200M}", "", r"\d+:23", "DesNet 'x' (200.0M) is larger than the AnsNet"),
        ("{name: x, shape: {layers: 31}}", "", r"\d+:31", "'x': layers 31 is more than the AnsNet's 30"),
        (
            "{name: x, params: 30M}",
            "  max_gap: 1.01\n",
            r"\d+:12",
            "no chain of at most 8 anchors reaches from the AnsNet",
        ),
        (
            "{name: x, max_package: 8MB, exports: [phone-int8]}",
            "",
            r"\d+:28",
            "DesNet 'x': no model of this family is small enough for 'phone-int8'",
        ),
    ],
)
def test_what_no_chain_can_reach_is_told_where_it_was_asked(tmp_path, desnet, rules, place, message):
    [problem] = refusal(tmp_path, anchors=f"    auto\n{rules}", desnets=f"  - {desnet}\n")
    assert re.match(rf"specs/family.yaml:{place}: {re.escape(message)}", problem), problem


# -- sizes by device --------------------------------------------------------------------------------------------------


def promised(tmp_path, limit, *, anchors=ANCHORS, profile="precision: int8\n"):
    desnets = f"  - {{name: x, max_package: {limit}, exports: [phone-int8, gateway]}}\n"
    loaded = load(tmp_path, anchors=anchors, desnets=desnets, profile=profile)
    return loaded, resolve_chain(loaded, ANSNET)


@settings(max_examples=25, deadline=None)
@given(limit=st.integers(330_000_000, 560_000_000), multiple=st.sampled_from([1, 32, 48]))
def test_the_largest_shape_whose_packages_all_fit_is_taken(tmp_path_factory, limit, multiple):
    profile = f"precision: int8\nmultiples: {{ffn: {multiple}}}\n"
    try:
        loaded, solved = promised(tmp_path_factory.mktemp("family"), limit, profile=profile)
    except SpecError as error:
        # A limit that only an anchor meets, whose shape was not made for these devices, is refused with the reason.
        assert "is not a multiple of" in str(error)
        reject()
    [placed] = solved.desnets
    profiles = loaded.family.desnets[0].exports
    shape = placed.member.structure.shape
    assert shape.ffn % multiple == 0
    assert max(placed.packages.values()) <= limit
    if placed.larger != solved.ansnet or placed.smaller is not None:
        assert contains(placed.larger.structure.shape, shape)
        # Wider it would either leave the neighbours or break the promise.
        step = 8 * multiple
        wider = placed.member.structure.at(replace(shape, ffn=shape.ffn + step))
        inside = shape.ffn + step <= placed.larger.structure.shape.ffn
        assert not inside or any(package_bytes(wider, profile) > limit for profile in profiles)
        if placed.smaller is not None:
            assert contains(shape, placed.smaller.structure.shape)
            assert max(placed.packages.values()) > 0.97 * limit


def test_a_promise_becomes_the_limit_of_the_package_that_is_built(tmp_path):
    loaded, solved = promised(tmp_path, "400MB", profile="precision: int8\nlimits: {max_package: 100MB}\n")
    steps = {step.id: step for step in build_graph(loaded.family, solved, VERSIONS).steps}
    assert steps["export x/phone-int8"].params["profile"]["limits"]["max_package"] == 100_000_000
    assert steps["export x/gateway"].params["profile"]["limits"]["max_package"] == 400_000_000
    assert solved.desnets[0].packages["phone-int8"] <= 100_000_000


def test_a_package_sizes_the_last_anchor_of_an_automatic_chain(tmp_path):
    desnets = "  - {name: watch, max_package: 40MB, exports: [phone-int8]}\n  - {name: phone, params: 88M}\n"
    solved = automatic(tmp_path, desnets)
    watch = solved.desnets[0]
    assert (watch.larger, watch.smaller) == (solved.anchors[-1], None)
    assert 38_500_000 < watch.packages["phone-int8"] <= 40_000_000
    assert max(gaps(solved)) <= 2.5


def test_a_package_below_the_chain_names_the_smallest_and_anchors_that_work_when_pasted(tmp_path):
    desnets = "  - {name: watch, max_package: 40MB, exports: [phone-int8]}\n"
    [problem] = refusal(tmp_path, desnets=desnets)
    assert re.match(r"specs/family.yaml:13:32: DesNet 'watch' is outside the chain: a package of anchor 'a76'", problem)
    least = re.search(r"max_package: (\d+);", problem)[1]
    solved = chain(tmp_path, desnets=desnets.replace("40MB", least))
    assert (solved.desnets[0].larger.name, solved.desnets[0].smaller) == ("a76", None)
    pasted = "".join(f"    {line}\n" for line in re.findall(r"- \{name: a[^\n]*", problem))
    assert chain(tmp_path, anchors=ANCHORS + pasted, desnets=desnets).desnets[0].packages["phone-int8"] <= 40_000_000


@pytest.mark.parametrize("size", ["params: 88M", "params: 120M", "params: 95001234", "max_package: 110MB"])
def test_solved_ffn_widths_are_the_multiples_that_a_profile_asks_for(tmp_path, size):
    desnets = f"  - {{name: x, {size}, exports: [phone-int8]}}\n"
    solved = chain(tmp_path, desnets=desnets, profile="precision: int8\nmultiples: {ffn: 32}\n")
    assert solved.desnets[0].member.structure.shape.ffn % 32 == 0


def test_a_desnet_that_would_equal_an_anchor_of_another_multiple_is_told(tmp_path):
    desnets = "  - {name: x, params: 76M, exports: [phone-int8]}\n"
    [problem] = refusal(tmp_path, desnets=desnets, profile="precision: int8\nmultiples: {ffn: 100}\n")
    assert "DesNet 'x' would equal anchor 'a76', whose ffn" in problem


def test_multiples_size_a_model_but_are_no_part_of_its_package(tmp_path):
    paths = [project(tmp_path / name) for name in ("a", "b")]
    assert all(path.exists() for path in paths)
    graphs = []
    for name, profile in (("a", "precision: int8\n"), ("b", "precision: int8\nmultiples: {ffn: 8}\n")):
        loaded = load(tmp_path / name, profile=profile)
        graphs.append(build_graph(loaded.family, resolve_chain(loaded, ANSNET), VERSIONS))
    exports = [[step.params for step in graph.steps if step.op == "export"] for graph in graphs]
    assert exports[0] == exports[1]
