"""A training that makes its model worse keeps the model that it began with, and says so."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from colbuild.errors import StoppedError
from colbuild.hashing import scan_tree
from colbuild.train.watching import observer
from colbuild.train.watching.outcome import Worsened
from colbuild.weights.files.checkpoint import load_checkpoint, load_nested
from colbuild.weights.prefix.subset import subset
from tests.helpers.steps import run_step
from tests.ops.bridges import bridged_to
from tests.ops.family import (
    ansnet,
    carry_out,
    distilled,
    larger,
    ordered,
    packed,
    recipe_of,
    room,
    shape_of,
    smaller,
    training_of,
)
from tests.ops.test_quantise import params_of

HARM = {
    "optimizer": {"lr": 1.0},
    "schedule": {"warmup": 0.0},
    "embeddings": "train",
    "loss": {"kd_weight": 0.9, "ce_weight": 0.1},
}
"""A learning rate that ruins a model without a loss that explodes."""


def ruined(op, inputs, params, **more):
    """(output, what training.json says, what was noted, what was remarked)."""
    noted, remarks, output = {}, [], Path(tempfile.mkdtemp(prefix=f"{op}-", dir=room()))
    run_step(op, inputs, json.loads(json.dumps(params)), output, note=noted.update, remark=remarks.append, **more)
    return output, json.loads((output / "training.json").read_text()) | noted["training"], noted, remarks


def recovered(**recipe):
    inputs = {"start": smaller(), "teacher": larger(), "corpus": packed()}
    return inputs, {"recipe": recipe_of(**HARM, **recipe), "split": "train"}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_the_start_is_kept_and_told():
    output, facts, noted, remarks = ruined("recover", *recovered())
    assert same(load_checkpoint(output).tensors, load_checkpoint(smaller()).tensors)
    assert facts["kept"] == "start"
    assert facts["worsened"]["end"] > facts["worsened"]["start"] + facts["worsened"]["noise"]
    assert facts["heldout"]["loss"] == pytest.approx(facts["worsened"]["start"])
    assert facts["heldout"]["kl"] is not None
    assert noted["given_up"] == facts["worsened"]["end"]
    assert noted["heldout_loss"] == facts["heldout"]["loss"]
    (remark,) = remarks
    assert remark.startswith("WARNING: the training made the model worse on held-out text")
    assert "its initial weights are kept" in remark


def test_precision_rounds_nothing_of_what_is_kept():
    output, *_ = ruined("recover", *recovered(precision="bf16"))
    assert same(load_checkpoint(output).tensors, load_checkpoint(smaller()).tensors)


def test_how_often_it_measures_and_interruptions_change_nothing(tmp_path):
    inputs, params = recovered()
    whole, *_ = ruined("recover", inputs, params, settings={"evaluate_every": 0.25})
    asked = iter(range(10**6))
    with pytest.raises(StoppedError):
        ruined("recover", inputs, params, partial=tmp_path, stopping=lambda: next(asked) >= 2)
    again, *_ = ruined("recover", inputs, params, partial=tmp_path, settings={"evaluate_every": 0.0})
    assert scan_tree(again) == scan_tree(whole)


def test_an_anchor_keeps_its_subset():
    output, facts, *_ = ruined("distill", *distilled(ordered(), recipe_of(**HARM), layers=3, ffn=72))
    assert facts["kept"] == "start"
    whole = load_checkpoint(ordered())
    wanted = subset(whole, load_checkpoint(output).structure.shape)
    assert same(load_checkpoint(output).tensors, wanted.tensors)


def test_a_segment_keeps_all_that_it_began_with():
    inputs, params = distilled(ordered(), recipe_of(**HARM, elastic={"form": "segment"}), layers=3, ffn=72)
    output, facts, *_ = ruined("distill", inputs, params)
    assert facts["kept"] == "start"
    whole = load_checkpoint(ordered())
    assert same(load_nested(output).tensors, whole.tensors)
    assert same(load_checkpoint(output).tensors, subset(whole, load_checkpoint(output).structure.shape).tensors)


def test_an_elastic_anchor_is_measured_itself():
    inputs, params = distilled(ordered(), recipe_of(**HARM, elastic={"form": "anchor"}), layers=3, ffn=72)
    _, facts, *_ = ruined("distill", inputs, {**params, "interval": shape_of(ordered(), layers=2, ffn=48)})
    assert facts["kept"] == "start"


@pytest.mark.parametrize("across", [None, "alm"])
def test_a_bridge_keeps_its_start(across):
    inputs, params = bridged_to("mistral", across=across, recipe=recipe_of(**HARM))
    output, facts, *_ = ruined("bridge", inputs, params)
    assert facts["kept"] == "start"
    if across is None:
        assert same(load_checkpoint(output).tensors, load_checkpoint(ordered()).tensors)


def test_rounded_weights_are_kept_as_they_were_rounded(monkeypatch):
    inputs = {"model": ansnet(), "corpus": packed()}
    few = {"tokens": 4 * 256}
    began = []
    monkeypatch.setattr(observer, "worsened", lambda start, end, least: began.append(start))
    unmoved, before, *_ = ruined("quantise", inputs, params_of(lr=1e-30, **few))
    # No harm that a random model takes is sure to be measured; whatever comes of it is called harm here.
    monkeypatch.setattr(observer, "worsened", lambda start, end, least: Worsened(start.loss, end.loss, 0.0))
    output, facts, *_ = ruined("quantise", inputs, params_of(lr=1.0, **few))
    assert (facts["kept"], "kept" in before) == ("start", False)
    # What is measured first is the rounded model, not the one that it was rounded from.
    assert began[0].loss == pytest.approx(before["heldout"]["loss"], abs=1e-4)
    one, other = (scan_tree(folder) for folder in (output, unmoved))
    assert {entry.path: entry.sha256 for entry in one if "training" not in entry.path} == {
        entry.path: entry.sha256 for entry in other if "training" not in entry.path
    }


def test_a_training_that_helps_says_nothing_new():
    output = carry_out("distill", *distilled(ordered(), layers=3, ffn=72))
    assert json.loads((output / "training.json").read_text()).keys() == {"steps", "tokens", "epochs"}
    assert training_of(output)["worsened"] is None
    assert replace(load_checkpoint(output), tensors={}).structure.shape.layers == 3
