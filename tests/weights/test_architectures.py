"""Ordering, subsets and mixtures on every architecture, against what transformers computes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from colbuild.arch import ARCHITECTURES, Role, norm_sites, tensors
from colbuild.weights.interpolate import EXPAND, SUBSET, Mix, mix, neighbours
from colbuild.weights.order import order
from colbuild.weights.subset import kept_layers, subset
from tests.helpers.configs import random_config
from tests.weights.helpers import logits, random_checkpoint, random_importance, random_ordered, reference_model

NAMES = list(ARCHITECTURES)
EXACT = {"rtol": 1e-4, "atol": 1e-4}


def _config(name, seed=0):
    """At least two kv heads and three layers, so that every axis can shrink."""
    config = random_config(name, seed)
    table = ARCHITECTURES[name]
    head_dim = 8
    heads = 4
    config |= {table.config_keys["layers"]: 4, table.config_keys["ffn"]: 40, table.config_keys["heads"]: heads}
    config[table.config_keys["hidden"]] = heads * head_dim
    if not table.ties_widths:
        config |= {"num_key_value_heads": 2, "head_dim": head_dim}
    if "layer_types" in config:
        kinds = ["full_attention", "sliding_attention"] if name == "gemma3_text" else ["full_attention"]
        config["layer_types"] = [kinds[layer % len(kinds)] for layer in range(4)]
    return config


def _smaller(checkpoint, **lengths):
    shape = replace(checkpoint.structure.shape, **lengths)
    if checkpoint.structure.architecture.ties_widths and "kv_heads" in lengths:
        return replace(shape, heads=shape.kv_heads, hidden=shape.kv_heads * shape.head_dim)
    if "kv_heads" in lengths:
        return replace(shape, heads=shape.kv_heads * 2)
    return shape


@pytest.mark.parametrize("name", NAMES)
def test_ordering_leaves_the_function_as_it_is(name):
    before = random_checkpoint(_config(name))
    after = order(before, random_importance(before))
    assert any(not torch.equal(before.tensors[key], after.tensors[key]) for key in before.tensors)
    torch.testing.assert_close(logits(after), logits(before), **EXACT)


@pytest.mark.parametrize("name", NAMES)
def test_a_narrower_ffn_is_the_model_whose_other_channels_are_silent(name):
    model = random_ordered(_config(name))
    silent = dict(model.tensors)
    for tensor in tensors(model.structure):
        if tensor.role is Role.FFN_OUT and len(tensor.axes) == 2:
            silent[tensor.name] = silent[tensor.name].clone()
            silent[tensor.name].narrow(tensor.axes.index("ffn"), 24, 16).zero_()
    smaller = subset(model, _smaller(model, ffn=24))
    torch.testing.assert_close(logits(smaller), logits(model, silent), **EXACT)


@pytest.mark.parametrize("name", [name for name in NAMES if not ARCHITECTURES[name].ties_widths])
def test_fewer_heads_are_the_model_whose_other_heads_are_silent(name):
    model = random_ordered(_config(name))
    silent = dict(model.tensors)
    for tensor in tensors(model.structure):
        if tensor.role is Role.ATTENTION_OUT and len(tensor.axes) == 2:
            silent[tensor.name] = silent[tensor.name].clone()
            silent[tensor.name][:, 16:] = 0.0
    smaller = subset(model, _smaller(model, kv_heads=1))
    torch.testing.assert_close(logits(smaller), logits(model, silent), **EXACT)


@pytest.mark.parametrize("name", NAMES)
def test_fewer_layers_are_the_model_whose_other_layers_are_silent(name):
    model = random_ordered(_config(name))
    smaller = subset(model, _smaller(model, layers=2))
    larger = neighbours(model, smaller, model.structure.shape)
    silent = mix(larger, Mix(0.0, 0.0, 0.0, 0.0, 1.0))
    torch.testing.assert_close(logits(smaller), logits(model, silent), **EXACT)
    if "layer_types" in model.config:
        kept = kept_layers(model.ordered, 2)
        assert smaller.config["layer_types"] == [model.config["layer_types"][layer] for layer in kept]


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("gpt2", "gpt_neox")])
def test_a_narrower_stream_is_the_model_whose_other_channels_are_zero(name):
    """LayerNorm takes the mean over all channels, so for GPT's kind this holds only roughly."""
    model = random_ordered(_config(name))
    hidden, energies = 24, model.ordered.residual.clone()
    energies[:, hidden:] = 0.0
    weights = dict(model.tensors)
    for tensor in tensors(model.structure):
        writes = tensor.role in (Role.EMBEDDING, Role.ATTENTION_OUT, Role.FFN_OUT)
        if writes and "hidden" in tensor.axes:
            weights[tensor.name] = weights[tensor.name].clone()
            weights[tensor.name].narrow(tensor.axes.index("hidden"), hidden, 8).zero_()
    zeroed = replace(model, tensors=weights, lineage=replace(model.ordered, residual=energies))
    torch.testing.assert_close(
        logits(subset(zeroed, _smaller(model, hidden=hidden))), logits(zeroed), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_subset_of_every_axis_loads_strictly(name):
    model = random_ordered(_config(name))
    lengths = {"layers": 2, "ffn": 16, "kv_heads": 1 if not ARCHITECTURES[name].ties_widths else 3}
    shape = _smaller(model, **lengths)
    if not ARCHITECTURES[name].ties_widths:
        shape = replace(shape, hidden=24)
    smaller = subset(model, shape)
    assert reference_model(smaller).config.num_hidden_layers == 2
    assert smaller.ordered.residual.shape == (len(norm_sites(smaller.structure)), shape.hidden)
    assert torch.isfinite(logits(smaller)).all()


@pytest.mark.parametrize("name", NAMES)
def test_both_ends_of_interpolation_are_the_subset_and_the_smaller_anchor(name):
    model = random_ordered(_config(name))
    lengths = {"layers": 3, "ffn": 32}
    smaller = subset(random_ordered(_config(name)), _smaller(model, layers=2, ffn=16))
    pair = neighbours(model, smaller, _smaller(model, **lengths))
    base = subset(model, _smaller(model, **lengths))
    torch.testing.assert_close(logits(base, mix(pair, SUBSET)), logits(base), rtol=0, atol=0)
    torch.testing.assert_close(logits(base, mix(pair, EXPAND)), logits(smaller), **EXACT)
