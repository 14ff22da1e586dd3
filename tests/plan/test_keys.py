"""A key changes with everything that can change a result, and with nothing else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colbuild.hashing import canonical_json
from colbuild.plan.drawing.keys import action_key
from colbuild.plan.steps.operations import OPERATIONS
from tests.helpers.steps import set_epoch
from tests.plan.families import DISTILL, RECOVER, graph

PARAMS = {
    "shape": {"layers": 24, "hidden": 576},
    "recipe": {"tokens": 80000, "optimizer": {"lr": 5e-4, "betas": [0.9, 0.95]}, "precision": "bf16"},
    "limit": None,
    "text": "Zürich",
}
INPUTS = {"teacher": "a" * 64, "corpus": "b" * 64}

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text('añ字\n"', max_size=4)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
params = st.dictionaries(st.text(max_size=4), values, max_size=4)
digests = st.text("0123456789abcdef", min_size=64, max_size=64)
inputs = st.dictionaries(st.sampled_from(["model", "corpus", "teacher"]), digests, max_size=3)


def reordered(value):
    """The same value with every mapping's keys in the opposite order."""
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(value)}
    return [reordered(item) for item in value] if isinstance(value, list) else value


@given(st.sampled_from(sorted(OPERATIONS)), params, inputs)
def test_order_of_keys_does_not_matter(op, given_params, given_inputs):
    expected = action_key(op, given_params, given_inputs)
    assert action_key(op, reordered(given_params), reordered(given_inputs)) == expected


@given(values)
def test_canonical_json_is_json_and_survives_a_round_trip(value):
    text = canonical_json(value)
    assert canonical_json(json.loads(text)) == text


@given(params, params)
def test_different_params_have_different_keys(first, second):
    same = canonical_json(first) == canonical_json(second)
    assert (action_key("distill", first, INPUTS) == action_key("distill", second, INPUTS)) == same


@given(inputs, inputs)
def test_different_inputs_have_different_keys(first, second):
    assert (action_key("distill", PARAMS, first) == action_key("distill", PARAMS, second)) == (first == second)


@pytest.mark.parametrize(
    "path",
    [
        ("shape", "layers"),
        ("recipe", "tokens"),
        ("recipe", "optimizer", "lr"),
        ("recipe", "optimizer", "betas"),
        ("limit",),
        ("text",),
    ],
    ids=".".join,
)
def test_each_field_counts(path):
    changed = json.loads(json.dumps(PARAMS))
    inside = changed
    for name in path[:-1]:
        inside = inside[name]
    inside[path[-1]] = "other"
    assert action_key("distill", changed, INPUTS) != action_key("distill", PARAMS, INPUTS)


def test_roles_count_not_only_digests():
    swapped = {"teacher": INPUTS["corpus"], "corpus": INPUTS["teacher"]}
    assert action_key("distill", PARAMS, swapped) != action_key("distill", PARAMS, INPUTS)


def test_every_operation_has_keys_of_its_own():
    assert len({action_key(op, PARAMS, INPUTS) for op in OPERATIONS}) == len(OPERATIONS)


def test_raising_an_epoch_changes_that_operation_alone(monkeypatch):
    before = {op: action_key(op, PARAMS, INPUTS) for op in OPERATIONS}
    set_epoch(monkeypatch, "distill", OPERATIONS["distill"].epoch + 1)
    changed = {op for op in OPERATIONS if action_key(op, PARAMS, INPUTS) != before[op]}
    assert changed == {"distill"}


def test_tuples_and_lists_are_one_since_a_record_read_back_has_lists():
    assert canonical_json({"betas": (0.9, 0.95)}) == canonical_json({"betas": [0.9, 0.95]})


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_is_refused(number):
    with pytest.raises(ValueError, match="JSON compliant"):
        action_key("distill", {"lr": number}, INPUTS)


def test_what_is_not_json_is_refused():
    with pytest.raises(TypeError):
        action_key("distill", {"stop": {1, 2}}, INPUTS)


def test_key_format_is_frozen(monkeypatch):
    """Where this fails, everything built so far would be built again: change the format only on purpose, with the tag."""
    set_epoch(monkeypatch, "order", 1)
    assert canonical_json({"b": [1, 2.0, None, True], "a": "ü"}) == '{"a":"ü","b":[1,2.0,null,true]}'.encode()
    key = action_key("order", {"tokens": 16384, "split": "train"}, {"model": "0" * 64, "corpus": "1" * 64})
    assert key == "97764b978b7c0d8c658c03295ad4dd2465e7ab398ed586b5a0e14b1744eaef70"


TRAININGS = {
    "distill a100": "c0d2603c98e897e3dc0b3256f8347c1f92b1b230e0fe9df290d3a8074eb4d5b2",
    "distill a76": "2c067e2be871d2316bd2141ed5acad56b3aaa67c0d531226e8a047296e7f9aff",
    "recover kiosk": "cf9fde610b924ee14887500b98c09377a9e2938c09b7ac0fdfab68842f5a0ba7",
}


@pytest.mark.parametrize("interval", ["", "checkpoint_every: 1h30min\n"])
def test_keys_of_trainings_are_frozen_and_know_no_checkpoint_interval(tmp_path, monkeypatch, interval):
    """Where this fails, every anchor built so far would be built again."""
    for op in ("distill", "recover"):
        set_epoch(monkeypatch, op, 1)
    built = graph(tmp_path, distill=DISTILL + interval, recover=RECOVER + interval)
    steps = [step for step in built.steps if step.op in ("distill", "recover")]
    assert {step.id: action_key(step.op, step.params, INPUTS) for step in steps} == TRAININGS
    assert {step.settings["checkpoint_every"] for step in steps} == {5400.0 if interval else 300.0}
    assert all(not step.settings for step in built.steps if step not in steps)
