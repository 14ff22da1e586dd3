"""Weights that are NaN or infinite, or of two types, are refused by name before anything is made of them."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from colbuild.errors import BuildError
from tests.helpers.steps import run_step
from tests.ops.family import ansnet, between, changed, larger, ordered, packed, recipe_of, room, smaller

LAST = "model.layers.1.mlp.down_proj.weight"
WAYS = [
    ("group_alpha", {}),
    ("global_alpha", {}),
    ("layer_alpha", {}),
    ("subset", {}),
    ("subset", {"refit": "auto"}),
    ("expand", {"fill": "copy"}),
    ("random", {"seed": 1}),
    ("uniform", {}),
]


def spoilt(folder, value=float("nan")):
    """A copy of a model with one entry that is no number."""

    def change(weight):
        weight[0, 0] = value
        return weight

    return changed(folder, LAST, change)


def refused(op, inputs, params, match):
    """Asserts that a step fails and leaves nothing."""
    output = Path(tempfile.mkdtemp(dir=room()))
    with pytest.raises(BuildError, match=match) as found:
        run_step(op, inputs, params, output)
    assert list(output.iterdir()) == []
    return found.value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(("method", "how"), WAYS)
def test_a_larger_anchor_with_a_weight_that_is_no_number(method, how, value):
    inputs, params = between(method, how=how)
    copy = spoilt(larger(), value)
    refused("interpolate", inputs | {"larger": copy}, params, rf"^{LAST} in {copy}\S* contains NaN or infinite weights")


@pytest.mark.parametrize(("method", "how"), [way for way in WAYS if way[0] not in ("subset", "random", "uniform")])
def test_a_smaller_anchor_with_a_weight_that_is_no_number(method, how):
    inputs, params = between(method, how=how)
    copy = spoilt(smaller())
    refused(
        "interpolate", inputs | {"smaller": copy}, params, rf"^{LAST} in {copy}\S* contains NaN or infinite weights"
    )


@pytest.mark.parametrize("method", ["group_alpha", "global_alpha", "layer_alpha", "expand"])
def test_anchors_of_two_types(method):
    inputs, params = between(method)
    copy = changed(smaller(), LAST, lambda weight: weight.to(torch.bfloat16))
    error = refused(
        "interpolate", inputs | {"smaller": copy}, params, "is float32 in the larger anchor and bfloat16 in the smaller"
    )
    assert "type" in error.hint


def test_an_ansnet_cannot_be_ordered():
    params = {"tokens": 1024, "split": "train"}
    refused(
        "order",
        {"model": spoilt(ansnet()), "corpus": packed()},
        params,
        f"^{LAST} in .* contains NaN or infinite weights",
    )


def test_statistics_of_the_residual_stream_are_looked_at_too():
    copy = shutil.copytree(larger(), Path(tempfile.mkdtemp(dir=room())) / "larger")
    residual = load_file(copy / "residual.safetensors")["residual"]
    save_file({"residual": residual / 0}, copy / "residual.safetensors")
    inputs, params = between()
    refused(
        "interpolate",
        inputs | {"larger": copy},
        params,
        r"^residual in .*residual\.safetensors contains NaN",
    )


def test_a_teacher_is_looked_at_before_it_teaches():
    inputs = {"start": larger(), "teacher": spoilt(ordered()), "corpus": packed()}
    refused(
        "recover", inputs, {"recipe": recipe_of(), "split": "train"}, f"^{LAST} in .* contains NaN or infinite weights"
    )
