"""Ordering: the same function, in another order."""

from __future__ import annotations

import pytest
import torch

from colbuild.arch import Structure, read_structure
from colbuild.weights.prefix.importance import Importance
from colbuild.weights.prefix.ordering import head_permutation, order
from tests.helpers.configs import random_llama_config
from tests.weights.helpers import GQA, logits, random_checkpoint, random_importance


@pytest.mark.parametrize("seed", range(8))
def test_ordering_preserves_the_function(seed):
    checkpoint = random_checkpoint(random_llama_config(seed), seed)
    ordered = order(checkpoint, random_importance(checkpoint, seed))
    torch.testing.assert_close(logits(ordered), logits(checkpoint), atol=1e-4, rtol=1e-4)


def test_grouped_heads_biases_and_tied_embeddings_survive_together():
    checkpoint = random_checkpoint(GQA)
    ordered = order(checkpoint, random_importance(checkpoint))
    assert not torch.equal(
        ordered.tensors["model.layers.0.self_attn.q_proj.bias"],
        checkpoint.tensors["model.layers.0.self_attn.q_proj.bias"],
    )
    torch.testing.assert_close(logits(ordered), logits(checkpoint), atol=1e-4, rtol=1e-4)


def test_every_axis_is_sorted_by_its_scores():
    checkpoint = random_checkpoint(GQA)
    importance = random_importance(checkpoint)
    ordered = order(checkpoint, importance)
    before, after = checkpoint.tensors["model.embed_tokens.weight"], ordered.tensors["model.embed_tokens.weight"]
    by_score = importance.hidden.argsort(descending=True)
    assert torch.equal(after, before[:, by_score])
    assert torch.equal(ordered.ordered.residual, importance.residual[:, by_score])
    channels = importance.ffn[2].argsort(descending=True)
    name = "model.layers.2.mlp.gate_proj.bias"
    assert torch.equal(ordered.tensors[name], checkpoint.tensors[name][channels])


def test_layers_stay_in_place_and_are_ranked():
    checkpoint = random_checkpoint(GQA)
    importance = random_importance(checkpoint)
    lineage = order(checkpoint, importance).ordered
    assert lineage.layers == (0, 1, 2, 3)
    assert list(lineage.ranking) == importance.layers.argsort(descending=True).tolist()


def test_heads_move_in_whole_groups():
    structure: Structure = read_structure(GQA)  # six heads, two for each kv head
    scores = torch.tensor([1.0, 2.0, 5.0, 9.0, 4.0, 3.0])
    heads, kv_heads = head_permutation(scores, structure)
    assert kv_heads.tolist() == [1, 2, 0]
    assert heads.tolist() == [3, 2, 4, 5, 1, 0]


def test_equal_scores_leave_everything_where_it_is():
    checkpoint = random_checkpoint(GQA)
    flat = random_importance(checkpoint)
    flat = Importance(
        *(torch.ones_like(getattr(flat, axis)) for axis in ("ffn", "heads", "hidden", "layers", "residual"))
    )
    ordered = order(checkpoint, flat)
    assert all(torch.equal(ordered.tensors[name], checkpoint.tensors[name]) for name in checkpoint.tensors)
    assert ordered.ordered.ranking == (0, 1, 2, 3)


def test_the_input_is_left_as_it_is():
    checkpoint = random_checkpoint(GQA)
    copies = {name: tensor.clone() for name, tensor in checkpoint.tensors.items()}
    order(checkpoint, random_importance(checkpoint))
    assert all(torch.equal(copies[name], checkpoint.tensors[name]) for name in copies)
