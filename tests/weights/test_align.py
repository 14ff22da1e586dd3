"""Aligning undoes what changes a model's coordinates and not its function."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch

from colbuild.arch import ARCHITECTURES
from colbuild.errors import BuildError
from colbuild.ops.shared.running_models import model_of
from colbuild.weights.align.alignment import align, check_alignable
from colbuild.weights.align.matching import assign, layers_alike, match_layers
from colbuild.weights.mixing.interpolation import mix, neighbours
from colbuild.weights.mixing.mixture import even
from colbuild.weights.prefix.subset import subset
from tests.helpers.scramble import permuted, turned
from tests.weights.helpers import config_of, logits, random_ordered, retrained, shaped, smaller_shape

UNTIED = ("llama", "mistral", "qwen2", "qwen3")


def untied(name, seed=0):
    return random_ordered(config_of(name) | {"tie_word_embeddings": False}, seed)


def windows(checkpoint, count=48):
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, checkpoint.structure.shape.vocab, (count, 16), generator=generator)


def aligned(candidate, predecessor, how):
    models = [model_of(one, torch.float32) for one in (candidate, predecessor)]
    return align(candidate, models[0], predecessor, models[1], windows(predecessor), how)


def smaller_of(larger, layers=2, ffn=24):
    """A smaller anchor that was trained away from the larger one a little."""
    return retrained(subset(larger, smaller_shape(larger, layers=layers, ffn=ffn)), seed=6, amount=0.02)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_permutation_is_undone_for_every_architecture(name):
    larger = random_ordered(config_of(name))
    smaller = smaller_of(larger)
    scrambled = permuted(smaller, seed=1)
    torch.testing.assert_close(logits(scrambled), logits(smaller), atol=1e-4, rtol=1e-4)
    found = aligned(scrambled, larger, "permute")
    assert found.ordered.layers == smaller.ordered.layers
    assert found.ordered.ranking == larger.ordered.ranking
    assert all(torch.equal(found.tensors[key], tensor) for key, tensor in smaller.tensors.items())


@pytest.mark.parametrize("name", UNTIED)
def test_a_turn_and_a_permutation_are_undone(name):
    larger = untied(name)
    # Norms and all else as in the larger anchor: the turn is found from what differs in nothing else.
    smaller = subset(larger, smaller_shape(larger, layers=2, ffn=24))
    scrambled = turned(smaller, seed=2)
    torch.testing.assert_close(logits(scrambled), logits(smaller), atol=2e-3, rtol=1e-3)
    found = aligned(scrambled, larger, "procrustes")
    torch.testing.assert_close(logits(found), logits(smaller), atol=2e-3, rtol=1e-3)
    exact = aligned(turned(larger, seed=2), larger, "procrustes")
    for key, tensor in larger.tensors.items():
        torch.testing.assert_close(exact.tensors[key], tensor, atol=2e-3, rtol=1e-2)


@pytest.mark.parametrize("how", ["none", "permute", "procrustes"])
def test_aligning_changes_no_function(how):
    larger = untied("llama")
    stranger = random_ordered(config_of("llama") | {"tie_word_embeddings": False, "num_hidden_layers": 3}, seed=9)
    found = aligned(replace(stranger, lineage=None), larger, how)
    torch.testing.assert_close(logits(found), logits(stranger), atol=1e-3, rtol=1e-3)


def test_what_was_aligned_can_be_mixed_without_a_barrier():
    larger = random_ordered(config_of("llama"))
    smaller = smaller_of(larger)
    shape = shaped(larger, layers=3)
    raw = replace(permuted(smaller, seed=4), lineage=smaller.lineage)
    found = replace(aligned(raw, larger, "permute"), lineage=smaller.lineage)
    expected, ours, unaligned = (
        logits(pair.base, mix(pair, even(0.5)))
        for pair in (neighbours(larger, one, shape) for one in (smaller, found, raw))
    )
    assert torch.equal(ours, expected)
    assert (unaligned - expected).abs().max() > 0.5


def test_a_desnet_keeps_the_layers_of_an_anchor_that_chose_its_own():
    larger = random_ordered(config_of("llama"))
    smaller = smaller_of(larger)
    lowest = sorted(larger.ordered.ranking[-2:])
    chosen = replace(smaller, lineage=replace(smaller.ordered, layers=tuple(lowest)))
    pair = neighbours(larger, chosen, shaped(larger, layers=3))
    assert set(lowest) <= set(pair.base.ordered.layers)
    assert larger.ordered.ranking[0] in pair.base.ordered.layers
    assert pair.partner.count(None) == 1
    assert pair.base.ordered.ranking == larger.ordered.ranking


def test_layers_are_matched_in_their_order_whatever_their_basis():
    generator = torch.Generator().manual_seed(1)
    theirs = [torch.randn(200, 12, generator=generator) for _ in range(6)]
    rotation, _ = torch.linalg.qr(torch.randn(12, 12, generator=generator))
    ours = [(theirs[place] + 0.1 * torch.randn(200, 12, generator=generator)) @ rotation for place in (0, 2, 5)]
    assert match_layers(layers_alike(ours, theirs)) == (0, 2, 5)
    assert match_layers(layers_alike(theirs, theirs)) == tuple(range(6))


def test_an_assignment_is_the_best_of_all():
    alike = torch.tensor([[0.9, 0.8, 0.1], [0.8, 0.1, 0.1], [0.1, 0.2, 0.1]])
    assert assign(alike).tolist() == [1, 0, 2]


def test_without_scipy_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(BuildError, match="needs scipy") as found:
        assign(torch.eye(2))
    assert found.value.hint == "pip install 'colbuild[align]'"


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("gpt2", {}, "LayerNorm of gpt2"),
        ("gpt_neox", {}, "LayerNorm of gpt_neox"),
        ("gemma3_text", {}, "norms after its branches"),
        ("llama", {"tie_word_embeddings": True}, "the head is tied to the embedding"),
    ],
)
def test_models_whose_stream_cannot_be_turned_are_named(name, changes, reason):
    structure = random_ordered(config_of(name) | changes).structure
    with pytest.raises(BuildError, match=reason) as found:
        check_alignable(structure, structure, "procrustes")
    assert "align: permute" in str(found.value.hint)


def test_models_of_another_kind_and_larger_ones_are_refused():
    llama = random_ordered(config_of("llama")).structure
    with pytest.raises(BuildError, match="different architectures") as found:
        check_alignable(random_ordered(config_of("mistral")).structure, llama, "permute")
    assert "bridge" in str(found.value.hint)
    wider = random_ordered(config_of("llama") | {"intermediate_size": 48}).structure
    with pytest.raises(BuildError, match="not inside its teacher's"):
        check_alignable(wider, llama, "permute")
    words = random_ordered(config_of("llama") | {"vocab_size": 71}).structure
    with pytest.raises(BuildError, match="vocabularies"):
        check_alignable(words, llama, "permute")


def test_weights_that_are_no_numbers_are_refused():
    larger = random_ordered(config_of("llama"))
    smaller = smaller_of(larger)
    broken = {name: tensor.clone() for name, tensor in smaller.tensors.items()}
    broken["model.layers.0.mlp.up_proj.weight"][0, 0] = float("nan")
    with pytest.raises(BuildError, match="the checkpoint computes NaN or infinity"):
        aligned(replace(smaller, tensors=broken), larger, "permute")
