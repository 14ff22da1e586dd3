"""Chains that cannot be: each mistake is told at its place, in words that say what to write instead."""

from __future__ import annotations

import pytest

from colbuild.errors import SpecError
from tests.plan.families import DISTILL, load, refusal

SPEC = "specs/family.yaml"
DESNET = "  - {name: x, params: 110M}\n"


def anchors(*lines: str) -> str:
    return "".join(f"    - {{{line}}}\n" for line in lines)


def mistakes(root, **parts: str) -> list[str]:
    """The problems that loading a project reports, one text each."""
    with pytest.raises(SpecError) as caught:
        load(root, **parts)
    return caught.value.message.split("\n\n")[1:]


@pytest.mark.parametrize(
    ("lines", "hint"),
    [
        (("name: a, params: 103M", "name: b, params: 103M"), "list the anchors from the largest to the smallest"),
        (("name: a, params: 76M", "name: b, params: 103M"), "list the anchors from the largest to the smallest"),
        (("name: a, params: 103M", "name: b, params: 102.98M"), "write clearly less than its 103.0M"),
        (
            ("name: a, shape: {layers: 20}", "name: b, shape: {layers: 20}"),
            "make every axis at most that of the anchor before it",
        ),
        (
            ("name: a, shape: {layers: 20}", "name: b, shape: {layers: 24, ffn: 512}"),
            "make every axis at most that of the anchor before it",
        ),
    ],
)
def test_two_anchors_of_one_size_or_in_the_wrong_order_say_what_to_do(tmp_path, lines, hint):
    [problem] = refusal(tmp_path, anchors=anchors(*lines), desnets=DESNET)
    assert problem.startswith(f"{SPEC}:11:")
    assert problem.splitlines()[-1].strip() == f"= {hint}"


def test_an_anchor_as_large_as_the_ansnet_is_refused(tmp_path):
    [problem] = refusal(tmp_path, anchors=anchors("name: a, params: 134515008"), desnets=DESNET)
    assert problem.startswith(f"{SPEC}:10:25: anchor 'a' (134.5M) is not smaller than the AnsNet (134.5M)")
    assert problem.endswith("= write a size smaller than the AnsNet")


def test_a_desnet_larger_than_the_ansnet_is_refused_by_size_and_by_shape(tmp_path):
    by_size, by_shape = refusal(
        tmp_path,
        desnets="  - {name: huge, params: 200M}\n  - {name: wide, shape: {hidden: 1152, heads: 18, kv_heads: 6}}\n",
    )[:2]
    assert by_size.endswith("= a family only holds models smaller than the AnsNet")
    assert by_shape.startswith(f"{SPEC}:14:")
    assert "is more than the AnsNet's" in by_shape


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ("hidden: 500", "hidden 500 is not a multiple of heads 9"),
        ("heads: 8, kv_heads: 3", "heads 8 is not a multiple of kv_heads 3"),
        ("heads: 6, kv_heads: 3", "the AnsNet has 3 heads for each kv head, and a subset keeps this ratio"),
        ("layers: 40", "layers 40 is more than the AnsNet's 30"),
    ],
)
@pytest.mark.parametrize("whose", ["anchor", "desnet"])
def test_a_shape_that_the_architecture_refuses_is_told_for_anchors_and_desnets(tmp_path, whose, shape, reason):
    if whose == "anchor":
        found = refusal(tmp_path, anchors=anchors(f"name: odd, shape: {{{shape}}}"), desnets=DESNET)
    else:
        found = refusal(tmp_path, desnets=f"  - {{name: odd, shape: {{{shape}}}}}\n")
    line = 10 if whose == "anchor" else 13
    assert any(
        problem.startswith(f"{SPEC}:{line}:") and "'odd': " in problem and reason in problem for problem in found
    )


@pytest.mark.parametrize("name", ["..", ".", "a/b", "/etc", "a\\\\b", "~", "C:x", "a b"])
@pytest.mark.parametrize("whose", ["anchor", "desnet"])
def test_a_name_that_is_a_path_is_refused(tmp_path, whose, name):
    parts = (
        {"anchors": anchors(f'name: "{name}", params: 103M')}
        if whose == "anchor"
        else {"desnets": f'  - {{name: "{name}", params: 110M}}\n'}
    )
    [problem] = mistakes(tmp_path, **parts)
    assert "is not a valid name: names are also folder names" in problem
    assert problem.startswith(f"{SPEC}:")


@pytest.mark.parametrize(
    ("lines", "desnets", "taken"),
    [
        (("name: a, params: 103M", "name: a, params: 76M"), DESNET, "by an anchor at specs/family.yaml:10"),
        (("name: a, params: 103M", "name: b, params: 76M"), "  - {name: b, params: 90M}\n", "specs/family.yaml:11"),
        (("name: a, params: 103M",), DESNET + DESNET, "by a DesNet at specs/family.yaml:12"),
        (("name: ansnet, params: 103M",), DESNET, "the name is the AnsNet's"),
    ],
)
def test_a_name_given_twice_says_who_has_it(tmp_path, lines, desnets, taken):
    [problem] = mistakes(tmp_path, anchors=anchors(*lines), desnets=desnets)
    assert problem.startswith(f"{SPEC}:")
    assert taken in problem.splitlines()[-1]


@pytest.mark.parametrize(
    ("distill", "recover", "circle"),
    [
        ("extends: recipes/distill.yaml\n", "tokens: 2M\n", "recipes/distill.yaml -> recipes/distill.yaml"),
        (
            f"extends: recipes/recover.yaml\n{DISTILL}",
            "extends: ./recipes/distill.yaml\n",
            "recipes/distill.yaml -> recipes/recover.yaml -> recipes/distill.yaml",
        ),
    ],
)
def test_recipes_that_extend_each_other_in_a_circle_name_it(tmp_path, distill, recover, circle):
    problem = mistakes(tmp_path, distill=distill, recover=recover)[0]
    assert problem.startswith("recipes/")
    assert f"recipes extend each other in a cycle: {circle}" in problem
    assert problem.endswith("= remove 'extends' from one of them")
