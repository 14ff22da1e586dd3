"""A sequence that no model of the family has positions for is refused by the plan, not by a training hours later."""

from __future__ import annotations

from colbuild.plan.positions import position_problems
from colbuild.spec import load_family
from tests.helpers.configs import SMOLLM2
from tests.plan.families import DISTILL, RECOVER, load

RECOVERED = "  - {name: kiosk, params: 88M, recover: {recipe: recipes/recover.yaml}}\n"


def told(root, positions, **parts):
    config = SMOLLM2 if positions is None else {**SMOLLM2, "max_position_embeddings": positions}
    return position_problems(load(root, desnets=RECOVERED, **parts), config)


def test_a_sequence_up_to_the_last_position_is_taken(tmp_path):
    assert told(tmp_path, 512) == []
    assert told(tmp_path, 512, recover=RECOVER + "sequence: 512\n") == []


def test_a_longer_sequence_is_told_at_its_line_for_distillations_and_recoveries(tmp_path):
    distill = DISTILL.replace("sequence: 256", "sequence: 600")
    first, second, third = told(tmp_path, 512, distill=distill, recover=RECOVER + "sequence: 513\n")
    assert str(first.place) == "recipes/distill.yaml:1"
    # Told once for both anchors.
    assert first == second
    assert first.message == (
        "'sequence' is 600 tokens: the AnsNet has 512 positions, and so has every model made of it"
    )
    assert first.hint == "at most sequence: 512"
    assert str(third.place) == "recipes/recover.yaml:3"


def test_a_default_that_is_too_long_is_told_where_the_recipe_is_named(tmp_path):
    (only,) = told(tmp_path, 300)
    assert str(only.place) == "specs/family.yaml:13"
    assert "'sequence' is 512 tokens" in only.message


def test_anchors_that_nobody_wrote_are_looked_at_too(tmp_path):
    path = tmp_path / "specs/family.yaml"
    load(tmp_path, desnets=RECOVERED)
    text = path.read_text()
    start, end = text.index("  anchors:\n"), text.index("desnets:")
    path.write_text(text[:start] + "  anchors: auto\n" + text[end:])
    found = position_problems(load_family(path), {"max_position_embeddings": 200})
    assert [str(problem.place) for problem in found] == ["recipes/distill.yaml:1", "specs/family.yaml:11"]


def test_a_configuration_that_tells_no_positions_refuses_nothing(tmp_path):
    assert told(tmp_path, None, distill=DISTILL.replace("256", "1000000")) == []
