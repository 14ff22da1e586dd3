"""The align step, and an anchor that starts from what it makes."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
import torch

from colbuild.errors import BuildError
from colbuild.ops.shared.running_models import model_of
from colbuild.train.watching.measure import mean_loss
from colbuild.weights.files.checkpoint import load_checkpoint, save_checkpoint
from colbuild.weights.prefix.subset import subset
from tests.helpers.scramble import permuted
from tests.ops.family import carry_out, distilled, ordered, packed, recipe_of, shape_of, twice

SHAPE = {"layers": 3, "ffn": 72}


@pytest.fixture(scope="module")
def public(tmp_path_factory):
    """The ordered AnsNet's subset, in an order of its own and without a lineage: a checkpoint from elsewhere."""
    folder = tmp_path_factory.mktemp("public")
    whole = load_checkpoint(ordered())
    save_checkpoint(permuted(subset(whole, replace(whole.structure.shape, **SHAPE)), seed=3), folder, ordered())
    return folder


def aligning(public, align="permute", tokens=2048, **lengths):
    params = {"shape": shape_of(ordered(), **(SHAPE | lengths)), "align": align, "tokens": tokens, "split": "train"}
    return {"model": public, "teacher": ordered(), "corpus": packed()}, params


def test_what_was_cut_from_the_teacher_is_found_in_it_again(public):
    found = load_checkpoint(carry_out("align", *aligning(public)))
    whole = load_checkpoint(ordered())
    expected = subset(whole, found.structure.shape)
    assert found.ordered.layers == expected.ordered.layers
    assert found.ordered.ranking == expected.ordered.ranking
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in expected.tensors.items())
    assert found.ordered.residual.shape == expected.ordered.residual.shape


def test_same_inputs_give_the_same_bytes(public):
    first, second = twice("align", *aligning(public))
    assert first == second


def test_an_anchor_starts_from_what_was_aligned(public):
    start = carry_out("align", *aligning(public))
    inputs, params = distilled(ordered(), recipe_of(embeddings="train"), layers=3, ffn=72)
    from_start, nested = (carry_out("distill", each, params) for each in ({**inputs, "start": start}, inputs))
    # What was found again is the nested subset itself, so that both trainings are the same.
    same = [load_checkpoint(folder).tensors for folder in (from_start, nested)]
    assert all(torch.equal(same[0][name], tensor) for name, tensor in same[1].items())
    other = load_checkpoint(start)
    moved = {name: tensor * 1.01 for name, tensor in other.tensors.items()}
    save_checkpoint(replace(other, tensors=moved), start, ordered())
    changed = load_checkpoint(carry_out("distill", {**inputs, "start": start}, params)).tensors
    assert not torch.equal(changed["model.norm.weight"], same[1]["model.norm.weight"])


@pytest.mark.parametrize(("embeddings", "kept"), [("auto", False), ("keep", True)])
def test_the_embedding_of_a_checkpoint_is_not_its_teachers_and_is_trained(public, embeddings, kept):
    start = carry_out("align", *aligning(public))
    inputs, params = distilled(ordered(), recipe_of(embeddings=embeddings), layers=3, ffn=72)
    anchor = load_checkpoint(carry_out("distill", {**inputs, "start": start}, params)).tensors
    name = "model.embed_tokens.weight"
    assert torch.equal(anchor[name], load_checkpoint(start).tensors[name]) is kept


def test_another_shape_than_asked_for_is_told_as_it_is_written(public):
    with pytest.raises(BuildError, match="the anchor's is") as found:
        carry_out("align", *aligning(public, ffn=64))
    assert found.value.hint == "write shape: {layers: 3, hidden: 48, ffn: 72, heads: 6, kv_heads: 3}"


def test_a_tied_head_cannot_be_turned(public):
    with pytest.raises(BuildError, match="the head is tied to the embedding") as found:
        carry_out("align", *aligning(public, align="procrustes"))
    assert "permute" in str(found.value.hint)


def test_another_vocabulary_of_the_same_size_needs_a_bridge(public, tmp_path):
    for path in public.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    tokenizer = json.loads((public / "tokenizer.json").read_text(encoding="utf-8"))
    words = tokenizer["model"]["vocab"]
    first, second = list(words)[300:302]
    words[first], words[second] = words[second], words[first]
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    with pytest.raises(BuildError, match="but other tokens") as found:
        carry_out("align", *aligning(tmp_path))
    assert "bridge" in str(found.value.hint)


def test_too_little_text_is_an_error(public):
    with pytest.raises(BuildError, match="too few to calibrate on 1,000,000"):
        carry_out("align", *aligning(public, tokens=10**6))


def test_taking_parts_as_they_lie_changes_no_weight(public):
    found = load_checkpoint(carry_out("align", *aligning(public, align="none")))
    before = load_checkpoint(public)
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in before.tensors.items())
    assert asdict(found.structure.shape)["layers"] == len(found.ordered.layers)


def test_what_was_aligned_has_the_loss_of_the_checkpoint(public):
    from colbuild.ops.shared.running_models import calibration

    losses = []
    for folder in (public, carry_out("align", *aligning(public))):
        model = model_of(load_checkpoint(folder), torch.float32)
        losses.append(mean_loss(model, calibration(packed(), "heldout", 512, model)))
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
