"""A family's steps: which there are, in which order, on what each depends, and which parameters each has."""

from __future__ import annotations

import networkx
import pytest

from colbuild.hashing import canonical_json
from colbuild.plan.drawing.build_graph import digraph, sources
from tests.helpers.profiles import INT8
from tests.plan.families import ANCHORS, DESNETS, DISTILL, RECOVER, VERSIONS, graph

SMALL = "  - {name: phone, params: 88M}\n"


def by_id(built):
    return {step.id: step for step in built.steps}


def params_that_differ(before, after):
    """Ids of the steps whose parameters are not the same in two graphs of the same steps."""
    first, second = by_id(before), by_id(after)
    assert first.keys() == second.keys()
    return {step for step in first if canonical_json(first[step].params) != canonical_json(second[step].params)}


def test_a_family_has_these_steps(tmp_path):
    assert [step.id for step in graph(tmp_path).steps] == [
        "source ansnet",
        "corpus train",
        "order ansnet",
        "distill a100",
        "distill a76",
        "interpolate phone",
        "interpolate kiosk",
        "recover kiosk",
        "evaluate ansnet",
        "evaluate a100",
        "evaluate a76",
        "evaluate phone",
        "export phone/phone-int8",
        "evaluate kiosk",
        "export watch/phone-int8",
    ]


def test_every_step_comes_after_what_it_needs(tmp_path):
    built = graph(tmp_path)
    place = {step.id: index for index, step in enumerate(built.steps)}
    for step in built.steps:
        assert all(place[needed] < place[step.id] for needed in step.inputs.values())
    assert networkx.is_directed_acyclic_graph(digraph(built.steps))
    assert set(digraph(built.steps).predecessors("recover kiosk")) == {
        "interpolate kiosk",
        "distill a100",
        "corpus train",
    }


def test_each_needed_anchor_learns_from_the_one_before_it_and_only_the_first_from_the_ansnet(tmp_path):
    steps = by_id(graph(tmp_path))
    assert steps["distill a100"].inputs == {"teacher": "order ansnet", "corpus": "corpus train"}
    assert steps["distill a76"].inputs == {"teacher": "distill a100", "corpus": "corpus train"}
    assert steps["interpolate phone"].inputs == {
        "larger": "distill a100",
        "smaller": "distill a76",
        "corpus": "corpus train",
    }


def test_largest_desnets_lie_between_the_ordered_ansnet_and_the_first_anchor(tmp_path):
    steps = by_id(graph(tmp_path, desnets="  - {name: big, params: 120M}\n"))
    assert steps["interpolate big"].inputs["larger"] == "order ansnet"
    assert steps["interpolate big"].inputs["smaller"] == "distill a100"


def test_unneeded_anchor_is_not_built(tmp_path):
    steps = by_id(graph(tmp_path, anchors=ANCHORS + "    - {name: a30, params: 30M}\n"))
    assert not [step for step in steps if "a30" in step]


def test_desnet_equal_to_an_anchor_adds_only_its_export(tmp_path):
    without = by_id(graph(tmp_path, desnets=SMALL))
    watch = "  - {name: watch, params: 76M, exports: [phone-int8]}\n"
    built = graph(tmp_path, desnets=SMALL + watch)
    assert by_id(built).keys() - without.keys() == {"export watch/phone-int8"}
    assert by_id(built)["export watch/phone-int8"].inputs == {"model": "distill a76", "heldout": "corpus train"}
    assert built.models["watch"] == built.models["a76"] == "distill a76"
    assert built.metrics["watch"] == built.metrics["a76"] == "evaluate a76"


@pytest.mark.parametrize(
    ("size", "start", "teacher"),
    [
        ("params: 88M", "interpolate x", "distill a100"),
        ("params: 120M", "interpolate x", "order ansnet"),
        ("params: 76M", "distill a76", "distill a100"),
        ("params: 103M", "distill a100", "order ansnet"),
    ],
    ids=["between anchors", "below the AnsNet", "equal to the second anchor", "equal to the first"],
)
def test_recovery_learns_from_the_model_above(tmp_path, size, start, teacher):
    desnets = f"  - {{name: x, {size}, recover: {{recipe: recipes/recover.yaml}}, exports: [phone-int8]}}\n"
    built = graph(tmp_path, desnets=SMALL + desnets)
    steps = by_id(built)
    assert steps["recover x"].inputs == {"start": start, "teacher": teacher, "corpus": "corpus train"}
    assert built.models["x"] == "recover x"
    assert steps["evaluate x"].inputs["model"] == steps["export x/phone-int8"].inputs["model"] == "recover x"


def test_train_and_eval_of_one_text_share_a_corpus(tmp_path):
    built = graph(tmp_path, data="  train: {source: ./corpus.txt, limit: 1MB}\n  eval: {tokens: 4k}\n")
    steps = by_id(built)
    assert "corpus eval" not in steps
    assert steps["evaluate a76"].inputs["corpus"] == "corpus train"
    assert steps["evaluate a76"].params == {"tokens": 4000, "split": "heldout"}
    assert list(sources(built)) == ["./ansnet", "./corpus.txt"]


@pytest.mark.parametrize("other", ["{source: ./other.jsonl}", "{limit: 2MB}", "{heldout: 0.5}"])
def test_eval_of_another_text_has_a_corpus_of_its_own_in_the_same_tokens(tmp_path, other):
    steps = by_id(graph(tmp_path, data=f"  train: {{source: ./corpus.txt, limit: 1MB}}\n  eval: {other}\n"))
    assert steps["evaluate a76"].inputs["corpus"] == "corpus eval"
    assert steps["distill a76"].inputs["corpus"] == "corpus train"
    assert steps["corpus eval"].inputs == steps["corpus train"].inputs == {"tokenizer": "source ansnet"}


def test_format_of_a_text_is_resolved_by_its_name_and_its_source_stays_out_of_the_parameters(tmp_path):
    steps = by_id(graph(tmp_path, data="  train: {source: ./dump.xml.bz2}\n"))
    expected = {"format": "mediawiki", "text": "text", "limit": None, "heldout": 0.02}
    assert steps["corpus train"].params == expected
    assert steps["corpus train"].sources == {"raw": "./dump.xml.bz2"}


def test_models_are_compared_with_the_ansnet_as_it_was_not_with_the_reordered_one(tmp_path):
    built = graph(tmp_path)
    assert {step.inputs["reference"] for step in built.steps if step.op == "evaluate"} == {"source ansnet"}
    assert built.models["ansnet"] == "source ansnet"


def test_ansnet_with_exports_is_packaged_as_it_was(tmp_path):
    plain = graph(tmp_path)
    built = graph(tmp_path, ansnet="{source: ./ansnet, exports: [gateway, phone-int8]}")
    assert by_id(built).keys() - by_id(plain).keys() == {"export ansnet/gateway", "export ansnet/phone-int8"}
    assert by_id(built)["export ansnet/gateway"].inputs == {"model": "source ansnet", "heldout": "corpus train"}
    assert built.packages["ansnet", "gateway"] == "export ansnet/gateway"


def test_export_knows_profile_and_versions_but_not_the_profiles_name(tmp_path):
    params = by_id(graph(tmp_path))["export phone/phone-int8"].params
    assert params["versions"] == VERSIONS
    assert params["profile"] == INT8


def test_a_profile_that_recovers_has_its_model_trained_to_be_rounded(tmp_path):
    recovered = "precision: int4\nrecover: {tokens: 8k, lr: 1e-4}\n"
    steps = by_id(graph(tmp_path, profile=recovered))
    step, package = steps["quantise phone/phone-int8"], steps["export phone/phone-int8"]
    assert step.inputs == {"model": "interpolate phone", "corpus": "corpus train"}
    assert step.params["recipe"]["tokens"] == 8000
    assert step.params["recipe"]["optimizer"]["lr"] == 1e-4
    deciding = {"precision": "int4", "block": 32, "keep_8bit": [], "embedding_bits": 8, "calibration": 4096}
    assert step.params["profile"] == deciding
    assert package.inputs == {"model": "interpolate phone", "heldout": "corpus train", "rounded": step.id}
    assert "split" not in package.params


@pytest.mark.parametrize(
    ("more", "differs"),
    [
        ("threads: 2", False),
        ("limits: {max_perplexity_increase: 0.05}", False),
        ("context: 512", False),
        ("block: 64", True),
    ],
)
def test_only_what_decides_the_rounding_trains_it_again(tmp_path, more, differs):
    form = "precision: int4\nrecover: quantised\n"
    before, after = graph(tmp_path, profile=form), graph(tmp_path, profile=f"{form}{more}\n")
    changed = params_that_differ(before, after)
    assert {"export phone/phone-int8", "export watch/phone-int8"} <= changed
    assert ("quantise phone/phone-int8" in changed) == differs


def test_the_room_of_a_mix_decides_its_rounding_too(tmp_path):
    form = "precision: int4-mixed\nrecover: quantised\nlimits: {max_package: %s}\n"
    before, after = (graph(tmp_path, profile=form % size) for size in ("80MB", "90MB"))
    assert "quantise phone/phone-int8" in params_that_differ(before, after)


def test_what_is_fitted_reads_the_familys_text(tmp_path):
    step = by_id(graph(tmp_path, profile="precision: int4\n"))["export phone/phone-int8"]
    assert step.inputs["corpus"] == "corpus train"
    assert step.params["split"] == "train"


@pytest.mark.parametrize(
    ("data", "split"),
    [
        ("  train: {source: ./corpus.txt}\n", "heldout"),
        ("  train: {source: ./corpus.txt, split: all}\n", "heldout"),
        ("  train: {source: ./corpus.txt, split: heldout}\n", "train"),
        ("  train: {source: ./corpus.txt, heldout: 0}\n  eval: {split: all}\n", "train"),
    ],
)
def test_mixtures_are_chosen_on_documents_that_are_held_out_where_there_are_any(tmp_path, data, split):
    step = by_id(graph(tmp_path, data=data))["interpolate phone"]
    assert step.inputs["corpus"] == "corpus train"
    assert step.params["split"] == split


# -- what a change reaches --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reached"),
    [
        ({"distill": DISTILL.replace("temperature: 1.0", "temperature: 2.0")}, {"distill a100", "distill a76"}),
        ({"anchors": ANCHORS.replace("76M}", "76M, tokens: 10k}")}, {"distill a76"}),
        ({"anchors": ANCHORS.replace("76M}", "76M, loss: {temperature: 4}}")}, {"distill a76"}),
        ({"recover": RECOVER.replace("2M", "3M")}, {"recover kiosk"}),
        ({"profile": "precision: fp32\n"}, {"export phone/phone-int8", "export watch/phone-int8"}),
        ({"desnets": DESNETS.replace("88M,", "88M, interpolate: {tokens: 1k},")}, {"interpolate phone"}),
        ({"desnets": DESNETS.replace("88M", "90M")}, {"interpolate phone"}),
        ({"desnets": DESNETS.replace("1152", "1160")}, {"interpolate kiosk"}),
        ({"extra": "order: {tokens: 1k}\n"}, {"order ansnet"}),
        ({"extra": "defaults: {seed: 4}\n"}, {"distill a100", "distill a76", "recover kiosk"}),
        ({"data": "  train: {source: ./corpus.txt, heldout: 0.1}\n"}, {"corpus train"}),
        (
            {"data": "  train: {source: ./corpus.txt, split: all}\n"},
            {"order ansnet", "distill a100", "distill a76", "recover kiosk"},
        ),
        (
            {"data": "  train: {source: ./corpus.txt}\n  eval: {tokens: 1k}\n"},
            {"evaluate ansnet", "evaluate a100", "evaluate a76", "evaluate phone", "evaluate kiosk"},
        ),
    ],
)
def test_a_changed_value_changes_only_the_steps_that_use_it(tmp_path, change, reached):
    assert params_that_differ(graph(tmp_path), graph(tmp_path, **change)) == reached


def test_every_parameter_leads_to_where_it_was_asked_for(tmp_path):
    built = graph(tmp_path)
    for step in built.steps:
        origins = built.origins[step.id]
        assert "" in origins
        assert step.params.keys() - origins.keys() <= {"versions"}
    assert built.origins["distill a76"]["recipe"] == ("anchors", 1, "recipe")
    assert built.origins["recover kiosk"]["recipe"] == ("desnets", 1, "recover")


def test_parameters_are_plain_json(tmp_path):
    for step in graph(tmp_path).steps:
        canonical_json(dict(step.params))


def test_names_do_not_change_what_is_built(tmp_path):
    before = graph(tmp_path, desnets=SMALL)
    after = graph(tmp_path, desnets=SMALL.replace("phone", "tablet"))
    assert by_id(before)["interpolate phone"].params == by_id(after)["interpolate tablet"].params
