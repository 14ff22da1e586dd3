"""Controls choose without looking, and make models of the asked shape all the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from colbuild.arch import ARCHITECTURES
from colbuild.errors import BuildError
from colbuild.weights.prefix.controls import random_subset, uniform_subset
from colbuild.weights.prefix.subset import subset
from tests.weights.helpers import config_of, logits, random_ordered, shaped, smaller_shape

LARGER = random_ordered()


def test_the_whole_shape_keeps_the_function():
    for made in (random_subset(LARGER, LARGER.structure.shape, 1), uniform_subset(LARGER, LARGER.structure.shape)):
        torch.testing.assert_close(logits(made), logits(LARGER), atol=1e-4, rtol=1e-4)


def test_what_is_drawn_follows_the_seed():
    shape = shaped(LARGER, layers=2, ffn=16, hidden=24)
    first, again, other = (random_subset(LARGER, shape, seed) for seed in (1, 1, 2))
    name = "model.embed_tokens.weight"
    assert torch.equal(first.tensors[name], again.tensors[name])
    assert not torch.equal(first.tensors[name], other.tensors[name])


def test_evenly_spaced_layers_and_channels_are_taken():
    made = uniform_subset(LARGER, shaped(LARGER, layers=2, ffn=4))
    assert made.ordered.layers == (0, 3)
    assert made.ordered.ranking == LARGER.ordered.ranking
    name = "model.layers.1.mlp.up_proj.weight"
    expected = LARGER.tensors["model.layers.3.mlp.up_proj.weight"][[0, 13, 26, 39]]
    assert torch.equal(made.tensors[name], expected)


def test_layers_keep_their_places_in_the_ansnet():
    shallower = subset(LARGER, shaped(LARGER, layers=3))
    made = uniform_subset(shallower, shaped(LARGER, layers=2))
    assert made.ordered.layers == (shallower.ordered.layers[0], shallower.ordered.layers[2])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_can_be_drawn_from(name):
    larger = random_ordered(config_of(name))
    shape = smaller_shape(larger, layers=3, ffn=24, kv_heads=3 if larger.structure.architecture.ties_widths else 1)
    for made in (random_subset(larger, shape, 3), uniform_subset(larger, shape)):
        assert made.structure.shape == shape
        assert logits(made).isfinite().all()


def test_a_shape_outside_is_an_error():
    shape = replace(LARGER.structure.shape, ffn=LARGER.structure.shape.ffn + 1)
    for choose in (uniform_subset, lambda larger, outside: random_subset(larger, outside, 0)):
        with pytest.raises(BuildError):
            choose(LARGER, shape)
