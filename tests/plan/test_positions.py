"""A sequence that no model of the family has positions for is refused by the plan, not by a training hours later."""

from __future__ import annotations

import pytest

from colbuild.plan.shapes.context_lengths import position_problems, with_contexts
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
        "'sequence' is 600 tokens: the AnsNet has 512 positions, and so has every model made from it"
    )
    assert first.hint == "at most sequence: 512"
    assert str(third.place) == "recipes/recover.yaml:4"


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


# -- packages and generated text --------------------------------------------------------------------------------------

PACKED = "  - {name: phone, params: 88M, exports: [phone-int8]}\n"
INT4 = "precision: int4\n"


def told_of(root, config=None, **parts):
    found = position_problems(load(root, **parts), {**SMOLLM2, "max_position_embeddings": 128, **(config or {})})
    return [(str(problem.place), problem.message.split(":")[0], problem.hint) for problem in found]


@pytest.mark.parametrize(
    ("profile", "told"),
    [
        ("precision: int8\n", []),
        ("context: 128\n", []),
        (
            "context: 129\n",
            [("exports/phone-int8.yaml:1", "'context' is 129 tokens", "at most context: 128, or leave it out")],
        ),
        (
            "static: {sequence: 200}\n",
            [("exports/phone-int8.yaml:1", "'sequence' is 200 tokens", "at most sequence: 128")],
        ),
        (
            INT4 + "recover: {sequence: 200}\n",
            [("exports/phone-int8.yaml:2", "'sequence' is 200 tokens", "at most sequence: 128")],
        ),
        (
            INT4 + "recover: quantised\n",
            [("exports/phone-int8.yaml:2", "'sequence' is 256 tokens", "at most sequence: 128")],
        ),
    ],
)
@pytest.mark.parametrize("of", ["a DesNet", "the AnsNet"])
def test_a_profile_that_asks_for_more_than_the_positions_is_told_at_its_line(tmp_path, profile, told, of):
    parts = {"ansnet": "{source: ./ansnet, exports: [phone-int8]}", "desnets": "  - {name: phone, params: 88M}\n"}
    short = DISTILL.replace("256", "128")
    assert (
        told_of(tmp_path, profile=profile, distill=short, **({"desnets": PACKED} if of == "a DesNet" else parts))
        == told
    )


def test_a_context_that_is_not_given_is_as_long_as_there_are_positions(tmp_path):
    ansnet = "{source: ./ansnet, exports: [gateway]}"
    loaded = load(tmp_path, desnets=PACKED, ansnet=ansnet)
    for positions, usual in ((128, 128), (2048, 2048), (8192, 2048)):
        family = with_contexts(loaded.family, {**SMOLLM2, "max_position_embeddings": positions})
        assert family.desnets[0].exports[0].context == usual
        assert family.ansnet.exports[0].context == 8192, "what is written is left as it is"
    assert with_contexts(loaded.family, {"model_type": "llama"}).desnets[0].exports[0].context == 2048


def test_the_context_of_a_family_with_a_bridge_goes_by_the_bridge(tmp_path):
    bridge = "{architecture: gpt2}"
    family = with_contexts(load(tmp_path, desnets=PACKED, bridge=bridge).family, SMOLLM2)
    assert family.desnets[0].exports[0].context == 1024
    unused = "{positions: 100}"
    family = with_contexts(load(tmp_path, desnets=PACKED, bridge=unused).family, SMOLLM2)
    assert family.desnets[0].exports[0].context == 2048, "this bridge is not built"


def test_a_bridges_training_is_as_short_as_the_ansnet_needs_it(tmp_path):
    bridge = "{architecture: qwen3, positions: 4096, sequence: 512}"
    (only,) = told_of(tmp_path, desnets=PACKED, bridge=bridge)
    assert only[1:] == ("'sequence' is 512 tokens", "at most sequence: 128")


def test_generated_text_is_no_longer_than_the_ansnet_reads(tmp_path):
    short = DISTILL.replace("256", "128")
    data = "  train: {generate: {tokens: 200k}}\n"
    assert told_of(tmp_path, desnets=PACKED, distill=short, data=data) == []
    data = "  train: {generate: {tokens: 200k, length: 300}}\n"
    assert list(dict.fromkeys(told_of(tmp_path, desnets=PACKED, distill=short, data=data))) == [
        ("specs/family.yaml:5", "'length' is 300 tokens", "at most length: 128")
    ]


def test_a_window_that_the_operators_do_not_have_is_a_limit_too(tmp_path):
    config = {"model_type": "mistral", "sliding_window": 64, "head_dim": 64}
    short, standard = DISTILL.replace("256", "128"), "operators: standard\ncontext: 100\n"
    parts = {"desnets": PACKED, "distill": short}
    assert told_of(tmp_path, config, profile="context: 100\n", **parts) == []
    (only,) = told_of(tmp_path, config, profile=standard, **parts)
    assert only[2] == "at most context: 64, or operators: contrib without static lengths"
    family = with_contexts(load(tmp_path, profile="operators: standard\n", **parts).family, {**SMOLLM2, **config})
    assert family.desnets[0].exports[0].context == 64
