"""What distill and recover make of a recipe: teachers from a cache, elastic students, hidden states, what they note."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from colbuild.arch import Shape
from colbuild.errors import BuildError
from colbuild.hashing import scan_tree
from colbuild.weights.files.checkpoint import load_checkpoint, load_nested, save_checkpoint
from colbuild.weights.prefix.subset import subset
from tests.helpers.steps import run_step
from tests.ops.family import (
    carry_out,
    changed,
    distilled,
    larger,
    ordered,
    packed,
    recipe_of,
    room,
    shape_of,
    smaller,
    training_of,
    twice,
)


def lessons(teacher, **changes):
    """What a teacher says of the text that `recipe_of` reads."""
    params = {
        "split": "train", "seed": 3, "sequence": 32, "windows": 16, "documents": "joined", "precision": "fp32",
        "temperature": 1.0, "type": "sampled",
    }  # fmt: skip
    return carry_out("teach", {"teacher": teacher, "corpus": packed()}, params | changes)


# -- a cached teacher -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sampled", "top_k"])
@pytest.mark.parametrize("documents", ["joined", "apart"])
def test_lessons_teach_what_the_teacher_would(kind, documents):
    how = {"documents": documents, "loss": {"kd_weight": 1.0, "ce_weight": 0.0}, "optimizer": {"lr": 1e-3}}
    online = training_of(carry_out("distill", *distilled(ordered(), recipe_of(**how), layers=4, ffn=48)))
    inputs, params = distilled(ordered(), recipe_of(**how, teacher="cached"), layers=4, ffn=48)
    read = inputs | {"lessons": lessons(ordered(), documents=documents, type=kind)}
    cached = training_of(carry_out("distill", read, params))
    # A random teacher finds everything possible: the hardest case for what keeps a few tokens of it.
    assert cached["heldout"]["kl"] == pytest.approx(online["heldout"]["kl"], rel=0.15)


def test_lessons_about_other_text_are_an_error():
    inputs, params = distilled(ordered(), recipe_of(teacher="cached", seed=4), layers=3)
    with pytest.raises(BuildError, match="has no record of window"):
        carry_out("distill", inputs | {"lessons": lessons(ordered())}, params)


def test_training_with_lessons_gives_the_same_bytes_again():
    inputs, params = distilled(ordered(), recipe_of(teacher="cached"), layers=3)
    first, second = twice("distill", inputs | {"lessons": lessons(ordered())}, params)
    assert first == second


# -- elastic students -------------------------------------------------------------------------------------------------

ELASTIC = {"elastic": {"form": "anchor", "share": 0.5}}
SEGMENT = {"elastic": {"form": "segment", "share": 0.5}}


def test_elastic_anchor_is_its_own_shape_and_better_at_the_sizes_below():
    how = {"tokens": 128 * 60, "optimizer": {"lr": 2e-3}, "loss": {"kd_weight": 1.0, "ce_weight": 0.0}}
    lower = shape_of(ordered(), layers=2, ffn=32)
    inputs, params = distilled(ordered(), recipe_of(**how), layers=4, ffn=96)
    plain = carry_out("distill", inputs, params)
    elastic = carry_out(
        "distill",
        inputs,
        {"shape": params["shape"], "split": "train", "interval": lower, "recipe": recipe_of(**how, **ELASTIC)},
    )
    assert load_checkpoint(elastic).structure == load_checkpoint(plain).structure
    assert {path.name for path in elastic.iterdir()} == {path.name for path in plain.iterdir()}
    apart = [kl_of_part(folder, Shape(**lower)) for folder in (plain, elastic)]
    assert apart[1] < 0.9 * apart[0]


def kl_of_part(folder, shape):
    """How far a model's part of a shape is from the ordered AnsNet: a training that takes one step of nearly no length."""
    start = Path(tempfile.mkdtemp(prefix="part-", dir=room()))
    save_checkpoint(subset(load_checkpoint(folder), shape), start, folder)
    inputs = {"start": start, "teacher": ordered(), "corpus": packed()}
    params = {"recipe": recipe_of(tokens=128, optimizer={"lr": 1e-12}, epochs="allow"), "split": "train"}
    return training_of(carry_out("recover", inputs, params))["heldout"]["kl"]


def test_segment_keeps_the_nested_student_beside_the_anchor_that_is_its_prefix():
    inputs, params = distilled(larger(), recipe_of(**SEGMENT), layers=2, ffn=48)
    found = carry_out("distill", inputs, params)
    nested, anchor = load_nested(found), load_checkpoint(found)
    assert nested.structure == load_checkpoint(larger()).structure
    prefix = subset(nested, anchor.structure.shape)
    assert all(torch.equal(prefix.tensors[name], anchor.tensors[name]) for name in anchor.tensors)
    assert not any(path.name.startswith("tokenizer") for path in (found / "nested").iterdir())
    assert load_nested(larger()) is None


@pytest.mark.parametrize("how", [ELASTIC, SEGMENT])
def test_elastic_training_gives_the_same_bytes_again_and_all_rows_count(how):
    inputs, params = distilled(larger(), recipe_of(**how, batch=3), layers=2, ffn=64)
    params |= {"interval": shape_of(larger(), layers=1, ffn=48)}
    first, second = twice("distill", inputs, params)
    assert first == second


# -- hidden states ----------------------------------------------------------------------------------------------------


def test_hidden_states_are_compared_where_layers_are_missing():
    def hidden(lengths, **loss):
        found = carry_out("distill", *distilled(ordered(), recipe_of(tokens=128, loss=loss), **lengths))
        return training_of(found)["curve"][0]["hidden"]

    assert hidden({"layers": 3}) > 0.0
    assert hidden({"ffn": 48}) == 0.0
    assert hidden({"ffn": 48}, hidden_weight=0.5) > 0.0
    assert hidden({"layers": 3}, hidden_weight=0.0) == 0.0


def test_layers_that_the_teacher_lacks_cannot_be_compared(tmp_path):
    inputs = {"start": larger(), "teacher": smaller(), "corpus": packed()}
    carry_out("recover", inputs, {"recipe": recipe_of(), "split": "train"})
    with pytest.raises(BuildError, match="layers that its teacher lacks") as caught:
        carry_out("recover", inputs, {"recipe": recipe_of(loss={"hidden_weight": 0.1}), "split": "train"})
    assert "hidden_weight: 0" in caught.value.hint


# -- what it notes ----------------------------------------------------------------------------------------------------


def run_noting(tmp_path, settings):
    """(the tree, what was noted, the lines of metrics) of a distillation of 20 steps."""
    noted, output = {}, Path(tempfile.mkdtemp(dir=room()))
    inputs, params = distilled(ordered(), recipe_of(tokens=128 * 20), layers=3)
    metrics = tmp_path / "distill a.metrics.jsonl"
    run_step("distill", inputs, params, output, settings=settings, metrics=metrics, note=noted.update)
    return scan_tree(output), noted, [json.loads(line) for line in metrics.read_text().splitlines()]


def test_ledger_and_metrics_tell_what_a_training_took_and_change_no_result(tmp_path):
    (tmp_path / "one").mkdir(), (tmp_path / "two").mkdir()
    tree, noted, lines = run_noting(tmp_path / "one", {"evaluate_every": 0.25})
    assert noted["tokens"] == 20 * 128
    assert noted["teacher_flops"] > noted["student_flops"] / 3 > 0
    assert noted["tokens_per_second"] > 0
    assert noted["peak_memory"] > 10**7
    training = [line for line in lines if line["kind"] == "train"]
    heldout = [line for line in lines if line["kind"] == "heldout"]
    assert [line["step"] for line in training] == list(range(1, 21))
    assert [line["step"] for line in heldout] == [5, 10, 15, 20]
    assert heldout[-1]["kl"] == noted["kl_to_teacher"]
    again, _, rare = run_noting(tmp_path / "two", {"evaluate_every": 0.0, "micro_batch": 1})
    assert [line["step"] for line in rare if line["kind"] == "heldout"] == [20]
    names = {entry.path: entry.sha256 for entry in tree}
    assert names.keys() == {entry.path for entry in again}


def test_tensorboard_gets_the_readings(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run_noting(tmp_path, {"track": ["tensorboard"]})
    folder = tmp_path / "distill a.tracking"
    found = EventAccumulator(str(next(folder.rglob("events.*")).parent))
    found.Reload()
    assert len(found.Scalars("train/loss")) == 20


def test_corpus_without_held_out_text_trains_and_measures_nothing(tmp_path):
    inputs, params = distilled(ordered(), layers=3)
    folder = shutil.copytree(packed(), tmp_path / "corpus")
    meta = json.loads((folder / "corpus.json").read_text())
    meta["splits"]["heldout"] = dict.fromkeys(meta["splits"]["heldout"], 0)
    (folder / "corpus.json").write_text(json.dumps(meta))
    for path in folder.glob("heldout*"):
        path.write_bytes(b"")
    assert training_of(carry_out("distill", inputs | {"corpus": folder}, params))["heldout"] is None


# -- what cannot be trained -------------------------------------------------------------------------------------------


def damaged(folder):
    """A copy of a model in which a norm's first weights are out of bounds: what is computed with it is infinite."""

    def change(weight):
        weight[:2] = 1e38
        return weight

    return changed(folder, "model.norm.weight", change)


def test_teacher_that_computes_infinity_is_named():
    inputs = {"start": larger(), "teacher": damaged(ordered()), "corpus": packed()}
    with pytest.raises(BuildError, match="the teacher computes NaN or infinity: its weights are damaged") as caught:
        carry_out("recover", inputs, {"recipe": recipe_of(), "split": "train"})
    assert "colbuild cache verify" in caught.value.hint


def test_student_that_computes_infinity_is_not_blamed_on_the_teacher():
    inputs = {"start": damaged(larger()), "teacher": ordered(), "corpus": packed()}
    with pytest.raises(BuildError, match="the loss is inf at step 1 of 4"):
        carry_out("recover", inputs, {"recipe": recipe_of(), "split": "train"})


def test_student_of_another_vocabulary_wants_a_bridge(tmp_path):
    other = shutil.copytree(larger(), tmp_path / "other")
    weights, config = load_file(other / "model.safetensors"), json.loads((other / "config.json").read_text())
    name = "model.embed_tokens.weight"
    weights[name] = torch.cat([weights[name], weights[name][:128]])
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    (other / "config.json").write_text(json.dumps(config | {"vocab_size": 640}))
    inputs = {"start": other, "teacher": ordered(), "corpus": packed()}
    with pytest.raises(BuildError, match=r"the student has 640 tokens and its teacher 512") as caught:
        carry_out("recover", inputs, {"recipe": recipe_of(), "split": "train"})
    assert "bridge" in caught.value.hint


def test_corpus_with_fewer_tokens_than_asked_says_how_often_it_would_be_read():
    inputs, params = distilled(ordered(), recipe_of(tokens=128 * 400), layers=2)
    with pytest.raises(BuildError, match=r"the recipe needs 51,200: it would be read \d\.\d times") as caught:
        carry_out("distill", inputs, params)
    assert "epochs: allow" in caught.value.hint
    params["recipe"] |= {"epochs": "allow", "tokens": 128 * 400}
    assert training_of(carry_out("distill", inputs, params))["epochs"] > 1.0
