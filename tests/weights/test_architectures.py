"""Ordering, subsets and mixtures on every architecture, against what transformers computes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from colbuild.arch import ARCHITECTURES, Role, norm_sites, tensors
from colbuild.weights.mixing.interpolation import mix, neighbours
from colbuild.weights.mixing.mixture import EXPAND, SUBSET, Mix
from colbuild.weights.prefix.ordering import order
from colbuild.weights.prefix.subset import kept_layers, subset
from tests.weights.helpers import (
    config_of,
    logits,
    random_checkpoint,
    random_importance,
    random_ordered,
    reference_model,
    smaller_shape,
)

NAMES = list(ARCHITECTURES)
EXACT = {"rtol": 1e-4, "atol": 1e-4}


def _silent(model, roles, axis, start):
    """The model's weights with what tensors of some roles have on an axis from `start` on set to zero."""
    weights = dict(model.tensors)
    for tensor in tensors(model.structure):
        if tensor.role in roles and axis in tensor.axes:
            weights[tensor.name] = weights[tensor.name].clone()
            place = tensor.axes.index(axis)
            weights[tensor.name].narrow(place, start, tensor.lengths[place] - start).zero_()
    return weights


@pytest.mark.parametrize("name", NAMES)
def test_ordering_leaves_the_function_as_it_is(name):
    before = random_checkpoint(config_of(name))
    after = order(before, random_importance(before))
    assert any(not torch.equal(before.tensors[key], after.tensors[key]) for key in before.tensors)
    torch.testing.assert_close(logits(after), logits(before), **EXACT)


@pytest.mark.parametrize("name", NAMES)
def test_a_narrower_ffn_is_the_model_whose_other_channels_are_silent(name):
    model = random_ordered(config_of(name))
    silent = _silent(model, (Role.FFN_OUT,), "ffn", 24)
    smaller = subset(model, smaller_shape(model, ffn=24))
    torch.testing.assert_close(logits(smaller), logits(model, silent), **EXACT)


@pytest.mark.parametrize("name", [name for name in NAMES if not ARCHITECTURES[name].ties_widths])
def test_fewer_heads_are_the_model_whose_other_heads_are_silent(name):
    model = random_ordered(config_of(name))
    silent = _silent(model, (Role.ATTENTION_OUT,), "heads*head_dim", 16)
    if model.ordered.heads is not None:
        # A norm over all heads sees fewer: the others must have no length there.
        energies = model.ordered.heads.clone()
        energies[:, 1:] = 0.0
        model = replace(model, lineage=replace(model.ordered, heads=energies), tensors=silent)
        silent = _silent(model, (Role.ATTENTION_IN,), "heads*head_dim", 16)
        silent = _silent(replace(model, tensors=silent), (Role.ATTENTION_IN,), "kv_heads*head_dim", 8)
    smaller = subset(model, smaller_shape(model, kv_heads=1))
    # What such a norm adds to a mean square counts for more where more heads are silent.
    near = EXACT if model.ordered.heads is None else {"rtol": 1e-3, "atol": 1e-3}
    torch.testing.assert_close(logits(smaller), logits(model, silent), **near)


@pytest.mark.parametrize("name", NAMES)
def test_fewer_layers_are_the_model_whose_other_layers_are_silent(name):
    model = random_ordered(config_of(name))
    smaller = subset(model, smaller_shape(model, layers=2))
    larger = neighbours(model, smaller, model.structure.shape)
    silent = mix(larger, Mix(0.0, 0.0, 0.0, 0.0, 1.0))
    torch.testing.assert_close(logits(smaller), logits(model, silent), **EXACT)
    if "layer_types" in model.config:
        kept = kept_layers(model.ordered, 2)
        assert smaller.config["layer_types"] == [model.config["layer_types"][layer] for layer in kept]


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("gpt2", "gpt_neox")])
def test_a_narrower_stream_is_the_model_whose_other_channels_are_zero(name):
    """LayerNorm takes the mean over all channels, so for GPT's kind this holds only roughly."""
    model = random_ordered(config_of(name))
    hidden, energies = 24, model.ordered.residual.clone()
    energies[:, hidden:] = 0.0
    weights = _silent(model, (Role.EMBEDDING, Role.ATTENTION_OUT, Role.FFN_OUT), "hidden", hidden)
    zeroed = replace(model, tensors=weights, lineage=replace(model.ordered, residual=energies))
    torch.testing.assert_close(
        logits(subset(zeroed, smaller_shape(model, hidden=hidden))), logits(zeroed), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_subset_of_every_axis_loads_strictly(name):
    model = random_ordered(config_of(name))
    lengths = {"layers": 2, "ffn": 16, "kv_heads": 1 if not ARCHITECTURES[name].ties_widths else 3}
    shape = smaller_shape(model, **lengths)
    if not ARCHITECTURES[name].ties_widths:
        shape = replace(shape, hidden=24)
    smaller = subset(model, shape)
    assert reference_model(smaller).config.num_hidden_layers == 2
    assert smaller.ordered.residual.shape == (len(norm_sites(smaller.structure)), shape.hidden)
    assert torch.isfinite(logits(smaller)).all()


@pytest.mark.parametrize("name", NAMES)
def test_both_ends_of_interpolation_are_the_subset_and_the_smaller_anchor(name):
    model = random_ordered(config_of(name))
    lengths = {"layers": 3, "ffn": 32}
    smaller = subset(random_ordered(config_of(name)), smaller_shape(model, layers=2, ffn=16))
    pair = neighbours(model, smaller, smaller_shape(model, **lengths))
    base = subset(model, smaller_shape(model, **lengths))
    torch.testing.assert_close(logits(base, mix(pair, SUBSET)), logits(base), rtol=0, atol=0)
    torch.testing.assert_close(logits(base, mix(pair, EXPAND)), logits(smaller), **EXACT)
