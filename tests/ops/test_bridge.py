"""The bridge: from one architecture and vocabulary into another, and what it learns from."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from colbuild.arch import ARCHITECTURES, Shape
from colbuild.errors import BuildError
from colbuild.hashing import scan_tree
from colbuild.ops import evaluate
from colbuild.ops.step_run import StepRun
from colbuild.weights.files.checkpoint import load_checkpoint
from tests.ops.bridges import ROWS, bridged_to, done, read, words
from tests.ops.family import carry_out, ordered, packed, recipe_of, training_of

UNTRAINED = recipe_of(tokens=1, optimizer={"lr": 1e-30})


def bits(folder, corpus):
    found = carry_out(
        "evaluate", {"model": folder, "reference": folder, "corpus": corpus}, {"tokens": 700, "split": "heldout"}
    )
    return json.loads((found / "metrics.json").read_text(encoding="utf-8"))["bits_per_byte"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_transformers_loads_it_with_the_familys_tokenizer(architecture):
    # Nothing is transplanted into an architecture whose norms stand elsewhere.
    start = "transplant" if ARCHITECTURES[architecture].has_norms_before else "random"
    found = done("bridge", *bridged_to(architecture, start=start, recipe=UNTRAINED), "loads")
    model, info = AutoModelForCausalLM.from_pretrained(found, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert model.config.model_type == architecture
    assert model.config.vocab_size == ROWS
    tokenizer = AutoTokenizer.from_pretrained(found)
    assert tokenizer.decode(tokenizer("Ada visits Zürich.").input_ids) == "Ada visits Zürich."
    assert model.config.eos_token_id == tokenizer.eos_token_id


@pytest.mark.parametrize("across", ["alm", "mined", "uld", "seqkd"])
def test_it_learns_across_vocabularies(across):
    inputs, params = bridged_to(across=across, recipe=recipe_of(tokens=4096, optimizer={"lr": 3e-3}))
    found = done("bridge", inputs, params, f"learns-{across}")
    curve = training_of(found)["curve"]
    assert curve[-1]["loss"] < curve[0]["loss"]
    assert (curve[0]["kl"] == 0.0) == (across == "seqkd")
    # The AnsNet's text in other tokens: it is not compared with it token by token.
    assert training_of(found)["heldout"]["kl"] is None
    start = done("bridge", *bridged_to(recipe=UNTRAINED), "start")
    assert bits(found, read()) < bits(start, read())


def test_it_starts_below_a_random_start():
    started, drawn = (
        done("bridge", *bridged_to(start=start, recipe=UNTRAINED), f"from-{start}")
        for start in ("transplant", "random")
    )
    assert bits(started, read()) != bits(drawn, read())
    one, other = (load_checkpoint(folder) for folder in (started, ordered()))
    assert torch.equal(
        one.tensors["model.layers.0.mlp.up_proj.weight"], other.tensors["model.layers.0.mlp.up_proj.weight"]
    )


def test_with_one_vocabulary_alm_is_plain_distillation():
    from tests.ops.family import distilled

    lengths = {"layers": 3, "ffn": 72}
    inputs, params = bridged_to(across=None, recipe=recipe_of(loss={"hidden_weight": 0.0}), **lengths)
    bridge = done("bridge", inputs, params, "same")
    anchor = carry_out("distill", *distilled(ordered(), recipe_of(loss={"hidden_weight": 0.0}), **lengths))
    one, other = (load_checkpoint(folder).tensors for folder in (bridge, anchor))
    assert all(torch.equal(one[name], other[name]) for name in other)


@pytest.mark.parametrize("how", [{}, {"architecture": "gpt2"}, {"across": "uld"}, {"start": "random"}])
def test_the_same_inputs_give_the_same_bytes(how):
    step = bridged_to(**{"recipe": recipe_of(tokens=256), **how})
    assert scan_tree(done("bridge", *step, "first")) == scan_tree(done("bridge", *step, "second"))


def test_it_may_be_smaller_than_the_ansnet():
    inputs, params = bridged_to(recipe=UNTRAINED, layers=3, ffn=72, heads=4, kv_heads=2, hidden=48)
    shape = load_checkpoint(done("bridge", inputs, params, "smaller")).structure.shape
    assert (shape.layers, shape.ffn, shape.heads, shape.vocab) == (3, 72, 4, ROWS)
    assert isinstance(shape, Shape)


def test_what_it_makes_is_no_ordered_model_yet():
    found = done("bridge", *bridged_to(recipe=UNTRAINED), "unordered")
    assert load_checkpoint(found).lineage is None


def test_a_text_in_other_tokens_than_the_familys_is_refused():
    inputs, params = bridged_to()
    with pytest.raises(BuildError, match="the tokenizer has"):
        done("bridge", {**inputs, "corpus": packed()}, params, "refused")


def test_a_sequence_that_the_ansnet_cannot_read_is_refused():
    inputs, params = bridged_to(recipe=recipe_of(sequence=600, batch=1, tokens=600))
    with pytest.raises(BuildError, match="position"):
        done("bridge", inputs, params, "too-long")


def test_words_are_of_the_asked_number():
    assert len(json.loads((words() / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]) == ROWS
    assert evaluate.run
    assert StepRun
