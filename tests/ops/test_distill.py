"""The distill and recover steps, end to end."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM

from colbuild.arch import Shape
from colbuild.errors import BuildError
from colbuild.hashing import scan_tree
from colbuild.weights.files.checkpoint import load_checkpoint
from colbuild.weights.prefix.subset import subset
from tests.helpers.steps import run_step
from tests.helpers.tiny import make_tiny_model
from tests.ops.family import (
    ansnet,
    carry_out,
    distilled,
    larger,
    ordered,
    packed,
    progress_of,
    recipe_of,
    smaller,
    training_of,
    twice,
)


def recovered(start, teacher, **changes):
    """(inputs, params) of a recovery."""
    return {"start": start, "teacher": teacher, "corpus": packed()}, {"recipe": recipe_of(**changes), "split": "train"}


def curve_of(folder):
    return training_of(folder)["curve"]


def test_anchor_has_its_shape_and_transformers_loads_it_strictly():
    model, facts = AutoModelForCausalLM.from_pretrained(larger(), output_loading_info=True)
    assert not facts["unexpected_keys"]
    assert not facts["missing_keys"]
    assert not facts["mismatched_keys"]
    assert (model.config.num_hidden_layers, model.config.intermediate_size) == (3, 72)
    assert (larger() / "tokenizer.json").read_bytes() == (ansnet() / "tokenizer.json").read_bytes()


def test_anchors_are_nested():
    first, second = load_checkpoint(larger()).ordered, load_checkpoint(smaller()).ordered
    assert second.ranking == first.ranking
    assert set(second.layers) < set(first.layers)
    assert set(first.layers) == set(first.ranking[:3])


def test_anchor_starts_as_its_teachers_subset_and_is_trained_away_from_it():
    teacher = load_checkpoint(ordered())
    start = subset(teacher, Shape(**distilled(ordered(), layers=3, ffn=72)[1]["shape"]))
    anchor = load_checkpoint(larger())
    name = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(anchor.tensors[name], start.tensors[name])
    # Four steps at a rate of at most 3e-4 each.
    assert (anchor.tensors[name] - start.tensors[name]).abs().max() < 4 * 3e-4 * 1.5


@pytest.mark.parametrize("elastic", [None, {"form": "anchor"}, {"form": "segment"}], ids=["plain", "anchor", "segment"])
@pytest.mark.parametrize("embeddings", ["auto", "keep", "train"])
def test_an_embedding_is_kept_to_the_last_bit_or_trained(elastic, embeddings):
    """Also where it computes in fewer digits than it is stored in."""
    teacher = load_checkpoint(ordered())
    how = recipe_of(elastic=elastic, embeddings=embeddings, precision="bf16")
    inputs, params = distilled(ordered(), how, layers=3, ffn=72)
    interval = {"interval": Shape(**params["shape"]).__dict__ | {"layers": 2}} if elastic else {}
    anchor = load_checkpoint(carry_out("distill", inputs, {**params, **interval})).tensors
    same = [name for name, weights in anchor.items() if "embed" in name and torch.equal(weights, teacher.tensors[name])]
    assert bool(same) is (embeddings != "train")
    name = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(anchor[name], teacher.tensors[name][:72])


def nearer(curve):
    """Whether the divergence from the teacher fell: the sum of the last steps against that of the first."""
    divergence = [entry["kl"] for entry in curve]
    return sum(divergence[-5:]) < 0.7 * sum(divergence[:5])


# A random teacher does not predict text, so the text would pull the other way.
FOLLOW = {"tokens": 128 * 40, "optimizer": {"lr": 1e-3}, "loss": {"kd_weight": 1.0, "ce_weight": 0.0}}


def test_distilling_brings_the_student_nearer_to_its_teacher():
    curve = curve_of(carry_out("distill", *distilled(ordered(), recipe_of(**FOLLOW), layers=2, ffn=24)))
    assert len(curve) == 40
    assert nearer(curve)


def test_training_json_says_what_was_trained():
    facts = training_of(larger())
    assert (facts["steps"], facts["tokens"]) == (4, 512)
    assert facts["epochs"] > 0.0
    assert [entry["step"] for entry in facts["curve"]] == [0, 1, 2, 3]
    of_own_text = {"written", "written_kl", "written_length"}
    assert set(facts["curve"][0]) == {"step", "loss", "kl", "ce", "lr", "norm", "hidden", *of_own_text}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_same_inputs_give_the_same_bytes(precision):
    first, second = twice("distill", *distilled(ordered(), recipe_of(precision=precision), layers=3, ffn=72))
    assert first == second


def test_another_seed_gives_other_weights():
    other = carry_out("distill", *distilled(ordered(), recipe_of(seed=4), layers=3, ffn=72))
    digests = [
        {entry.path: entry.sha256 for entry in scan_tree(folder)}["model.safetensors"] for folder in (larger(), other)
    ]
    assert digests[0] != digests[1]


def test_inputs_stay_as_they_are():
    before = scan_tree(ordered())
    carry_out("distill", *distilled(ordered(), layers=2, ffn=64))
    assert scan_tree(ordered()) == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_stored_in_the_type_of_the_teacher(tmp_path, dtype):
    model = make_tiny_model(tmp_path / "model", layers=2, hidden=48, ffn=96, heads=6, kv_heads=3, dtype=dtype)
    made = carry_out("order", {"model": model, "corpus": packed()}, {"tokens": 512, "split": "train"})
    anchor = carry_out("distill", *distilled(made, recipe_of(tokens=128, precision="bf16"), ffn=48))
    assert {tensor.dtype for tensor in load_checkpoint(anchor).tensors.values()} == {dtype}


def test_model_that_was_never_ordered_is_an_error():
    with pytest.raises(BuildError, match="never ordered"):
        carry_out("distill", *distilled(ansnet(), layers=3))


def test_sequence_longer_than_the_models_positions_is_an_error():
    with pytest.raises(BuildError, match="513 tokens, the model only 512 positions") as caught:
        carry_out("distill", *distilled(ordered(), recipe_of(sequence=513), layers=3))
    assert "512" in caught.value.hint


def test_configuration_without_positions_means_transformers_default(tmp_path):
    folder = shutil.copytree(ordered(), tmp_path / "teacher")
    config = json.loads((folder / "config.json").read_text())
    del config["max_position_embeddings"]  # LlamaConfig then says 2048
    (folder / "config.json").write_text(json.dumps(config))
    carry_out("distill", *distilled(folder, recipe_of(tokens=1, sequence=600, batch=1), layers=1))


def test_corpus_smaller_than_one_window_is_an_error(tmp_path):
    (tmp_path / "raw.txt").write_text("only a few words")
    (tmp_path / "corpus").mkdir()
    params = {"format": "text", "text": "text", "limit": None, "heldout": 0.0}
    run_step("corpus", {"raw": tmp_path / "raw.txt", "tokenizer": ansnet()}, params, tmp_path / "corpus")
    inputs, params = distilled(ordered(), layers=3)
    with pytest.raises(BuildError, match="too few for one window"):
        carry_out("distill", inputs | {"corpus": tmp_path / "corpus"}, params)


def test_corpus_of_another_tokenizer_is_an_error(tmp_path):
    meta = json.loads((packed() / "corpus.json").read_text())
    folder = shutil.copytree(packed(), tmp_path / "corpus")
    (folder / "corpus.json").write_text(json.dumps(meta | {"vocabulary": 600}))
    inputs, params = distilled(ordered(), layers=3)
    with pytest.raises(BuildError, match=r"tokenizer has 600 tokens, the model's embedding has 512"):
        carry_out("distill", inputs | {"corpus": folder}, params)


def test_diverging_training_is_an_error_and_writes_no_model():
    told = []
    inputs, params = distilled(ordered(), recipe_of(tokens=128 * 30, optimizer={"lr": 1e12, "clip": 1e12}), layers=3)
    with pytest.raises(BuildError, match=r"is (nan|inf) at step \d+ of 30"):
        carry_out("distill", inputs, params, told.append)
    assert len(told) < 30


def test_recovery_keeps_the_shape_and_the_lineage_of_its_start():
    found = carry_out("recover", *recovered(smaller(), larger()))
    before, after = load_checkpoint(smaller()), load_checkpoint(found)
    assert after.config == before.config
    assert after.ordered.layers == before.ordered.layers
    assert not torch.equal(after.tensors["model.norm.weight"], before.tensors["model.norm.weight"])
    assert (found / "tokenizer.json").read_bytes() == (smaller() / "tokenizer.json").read_bytes()


def test_recovery_brings_the_student_nearer_to_its_teacher():
    assert nearer(curve_of(carry_out("recover", *recovered(smaller(), larger(), **FOLLOW))))


def test_recovery_of_a_model_that_is_its_own_teacher_starts_with_nothing_to_learn_from_it():
    curve = curve_of(carry_out("recover", *recovered(larger(), larger())))
    assert curve[0]["kl"] == 0.0


def test_recovery_with_the_same_inputs_gives_the_same_bytes():
    first, second = twice("recover", *recovered(smaller(), larger()))
    assert first == second


def test_progress_counts_tokens():
    told = progress_of("recover", *recovered(smaller(), larger()))
    assert [entry.done for entry in told] == [128, 256, 384, 512]
    assert {entry.total for entry in told} == {512}
