"""What the plan says about each step is what a build would do, and why."""

from __future__ import annotations

from dataclasses import replace

import pytest

from colbuild.plan.changes.states import State, result_of
from colbuild.plan.drawing.step import Step
from colbuild.plan.steps.operations import OPERATIONS
from colbuild.store.locks import remove
from tests.helpers.steps import set_epoch
from tests.plan.built import SOURCES, finish, nothing_known, world
from tests.plan.families import ANCHORS, DESNETS, DISTILL

WARMER = DISTILL.replace("temperature: 1.0", "temperature: 2.0")


@pytest.fixture
def fam(tmp_path):
    return world(tmp_path)


def signs(plans):
    """Step id -> its sign, of the steps that are not cached."""
    return {step: plan.state.value for step, plan in plans.items() if plan.state is not State.CACHED}


def test_fresh_family_is_all_new_each_with_its_place_and_leaves_no_trace(fam):
    plans = fam.plan()
    assert set(signs(plans).values()) == {"+"}
    assert len(signs(plans)) == len(plans) == 15
    assert plans["distill a76"].why == "new  specs/family.yaml:11"
    assert plans["recover kiosk"].why == "new  specs/family.yaml:14"
    assert plans["source ansnet"].why == "new  specs/family.yaml:3"
    assert all(plan.output is None and plan.seconds is None for plan in plans.values())
    assert not fam.store.root.exists()


def test_only_steps_with_known_inputs_have_a_key_yet(fam):
    assert [step for step, plan in fam.plan().items() if plan.key] == ["source ansnet"]
    assert [step for step, plan in fam.plan(nothing_known).items() if plan.key] == []


def test_built_family_is_all_cached_with_outputs_keys_and_times(fam):
    records = fam.build()
    plans = fam.plan()
    assert signs(plans) == {}
    assert {step: plan.output for step, plan in plans.items()} == {
        step: record.output for step, record in records.items()
    }
    assert {step: plan.key for step, plan in plans.items()} == {step: record.key for step, record in records.items()}
    assert {plan.seconds for plan in plans.values()} == {12.5}


def test_a_model_that_is_compared_with_itself_is_told_once(fam):
    records = fam.build()
    look = {**SOURCES, "./ansnet": "b" * 64}.get
    source = next(step for step in fam.graph().steps if step.id == "source ansnet")
    other = dict.fromkeys(records[source.id].inputs, "b" * 64)
    finish(fam.store, "fam", source, other, b"another model")
    assert fam.plan(look)["evaluate ansnet"].why == "the AnsNet changed"


def test_changed_recipe_value_is_told_with_its_place_and_what_follows_is_conditional(fam):
    fam.build()
    plans = fam.plan(distill=WARMER)
    assert signs(plans) == {
        "distill a100": "~",
        "distill a76": "~",
        "interpolate phone": "?",
        "interpolate kiosk": "?",
        "recover kiosk": "?",
        "evaluate a100": "?",
        "evaluate a76": "?",
        "evaluate phone": "?",
        "evaluate kiosk": "?",
        "export phone/phone-int8": "?",
        "export watch/phone-int8": "?",
    }
    assert plans["distill a100"].why == "loss.temperature 1.0 -> 2.0  recipes/distill.yaml:3"
    assert plans["distill a100"].key is not None
    assert plans["distill a76"].key is None
    assert plans["interpolate phone"].why == "only if a100 or a76 changes"
    assert plans["export phone/phone-int8"].why == "only if phone changes"
    assert plans["export watch/phone-int8"].why == "only if a76 changes"
    assert plans["distill a100"].seconds == plans["interpolate phone"].seconds == 12.5


def test_changed_value_of_one_anchor_leaves_the_other_cached(fam):
    fam.build()
    plans = fam.plan(anchors=ANCHORS.replace("76M}", "76M, tokens: 10k}"))
    assert plans["distill a100"].state is State.CACHED
    assert plans["distill a76"].why == "tokens 80000 -> 10000  specs/family.yaml:11"
    assert plans["interpolate phone"].why == "only if a76 changes"


def test_many_changes_are_counted(fam):
    fam.build()
    changed = DISTILL.replace("256", "128").replace("1.0", "2.0").replace("0.9", "0.8").replace("5e-4", "1e-4")
    assert fam.plan(distill=changed)["distill a100"].why == (
        "loss.kd_weight 0.9 -> 0.8  recipes/distill.yaml:4; "
        "loss.temperature 1.0 -> 2.0  recipes/distill.yaml:3 and 2 more"
    )


@pytest.mark.parametrize(
    ("parts", "step", "why"),
    [
        (
            {"profile": "precision: fp32\n"},
            "export phone/phone-int8",
            "precision int8 -> fp32  exports/phone-int8.yaml:1",
        ),
        ({"extra": "order: {tokens: 1k}\n"}, "order ansnet", "tokens 16384 -> 1000  specs/family.yaml:16"),
        (
            {"data": "  train: {source: ./corpus.txt, limit: 2MB}\n"},
            "corpus train",
            "limit none -> 2000000  specs/family.yaml:5",
        ),
        (
            {"desnets": DESNETS.replace("ffn: 1152", "ffn: 1160")},
            "interpolate kiosk",
            "shape.ffn 1152 -> 1160  specs/family.yaml:14",
        ),
        (
            {"distill": DISTILL + "schedule: {warmup: 0.2}\n"},
            "distill a100",
            "schedule.warmup 0.1 -> 0.2  recipes/distill.yaml:7",
        ),
    ],
)
def test_reason_names_value_and_place(fam, parts, step, why):
    fam.build()
    plan = fam.plan(**parts)[step]
    assert (plan.state, plan.why) == (State.CHANGED, why)


def test_new_desnet_is_new_and_the_rest_stays(fam):
    fam.build()
    plans = fam.plan(desnets=DESNETS + "  - {name: extra, params: 80M}\n")
    assert signs(plans) == {"interpolate extra": "+", "evaluate extra": "+"}
    assert plans["interpolate extra"].key is not None
    assert plans["interpolate extra"].why == "new  specs/family.yaml:16"


def test_step_whose_twin_is_built_is_cached_whatever_its_name(fam):
    fam.build()
    plans = fam.plan(desnets=DESNETS.replace("phone,", "tablet,"))
    assert signs(plans) == {}
    assert plans["interpolate tablet"].state is State.CACHED


def test_values_taken_back_are_found_again(fam):
    fam.build()
    fam.build(distill=WARMER)
    assert signs(fam.plan()) == {}
    assert signs(fam.plan(distill=WARMER)) == {}


def test_result_that_comes_out_the_same_stops_the_rebuild(fam):
    """Early cutoff: keys name what came out, not what was asked for."""
    records = fam.build()
    shorter = ANCHORS.replace("103M}", "103M, tokens: 10k}")
    assert len(signs(fam.plan(anchors=shorter))) > 10
    [step] = [step for step in fam.graph(anchors=shorter).steps if step.id == "distill a100"]
    old = records["distill a100"]
    [file] = fam.store.files(old.output).iterdir()
    finish(fam.store, "fam", step, old.inputs, file.read_bytes())
    assert signs(fam.plan(anchors=shorter)) == {}


def test_damaged_result_is_rebuilt_and_what_follows_waits_for_it(fam):
    records = fam.build()
    remove(fam.store.files(records["distill a76"].output))
    plans = fam.plan()
    assert plans["distill a76"].state is State.CHANGED
    assert plans["distill a76"].why == "its result is no longer in the store"
    assert plans["distill a76"].key == records["distill a76"].key
    assert plans["distill a100"].state is State.CACHED
    assert plans["export watch/phone-int8"].why == "only if a76 changes"


def test_step_whose_own_result_is_gone_runs_whatever_comes_before_it(fam):
    records = fam.build()
    for step in ("distill a76", "interpolate phone"):
        remove(fam.store.files(records[step].output))
    plans = fam.plan()
    assert plans["interpolate phone"].state is State.CHANGED
    assert plans["interpolate phone"].why == "its result is no longer in the store"
    assert plans["interpolate kiosk"].state is State.CONDITIONAL


def test_source_of_unknown_content_makes_the_rest_conditional(fam):
    fam.build()
    plans = fam.plan({"./ansnet": SOURCES["./ansnet"]}.get)
    assert plans["source ansnet"].state is State.CACHED
    assert (plans["corpus train"].state, plans["corpus train"].why) == (
        State.CONDITIONAL,
        "only if ./corpus.txt changes",
    )
    assert plans["order ansnet"].why == "only if the corpus changes"
    assert plans["distill a100"].why == "only if the ordered AnsNet or the corpus changes"


def test_changed_source_is_the_reason(fam):
    fam.build()
    plans = fam.plan({**SOURCES, "./corpus.txt": "d" * 64}.get)
    assert (plans["corpus train"].state, plans["corpus train"].why) == (State.CHANGED, "./corpus.txt changed")
    assert plans["order ansnet"].state is State.CONDITIONAL


def test_each_source_is_looked_at_once(fam):
    asked = []
    data = "  train: {source: ./corpus.txt}\n  eval: {limit: 1MB}\n"
    fam.plan(asked.append, data=data)
    assert asked == ["./ansnet", "./corpus.txt"]


def test_raised_epoch_is_told_as_a_change_of_colbuild(fam, monkeypatch):
    fam.build()
    set_epoch(monkeypatch, "interpolate", OPERATIONS["interpolate"].epoch + 1)
    plans = fam.plan()
    assert plans["interpolate phone"].state is State.CHANGED
    assert plans["interpolate phone"].why == "this version of colbuild builds it differently"
    assert plans["distill a76"].state is State.CACHED


def test_input_that_a_step_did_not_have_is_a_change_even_if_unknown(fam):
    fam.build()
    built = fam.graph()
    steps = tuple(
        replace(step, inputs={**step.inputs, "hint": "source ansnet"}) if step.id == "evaluate a76" else step
        for step in built.steps
    )
    plan = fam.plan(nothing_known, built=replace(built, steps=steps))["evaluate a76"]
    assert (plan.state, plan.why) == (State.CHANGED, "the AnsNet changed")


def test_other_family_in_the_same_store_does_not_mix_up_the_reasons(fam):
    fam.build()
    assert fam.store.last("fam", "distill a100") is not None
    assert fam.store.last("other", "distill a100") is None


@pytest.mark.parametrize(
    ("step", "name"),
    [
        (("distill", "a60"), "a60"),
        (("interpolate", "phone"), "phone"),
        (("corpus", "train"), "the corpus"),
        (("source", "ansnet"), "the AnsNet"),
        (("order", "ansnet"), "the ordered AnsNet"),
    ],
)
def test_reasons_name_what_a_step_makes(step, name):
    assert result_of(Step(*step, {})) == name
