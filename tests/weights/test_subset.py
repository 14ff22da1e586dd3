"""Subset: a prefix of every axis, whatever the shape."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from colbuild.arch import Role, norm_sites, tensors
from colbuild.errors import BuildError
from colbuild.weights.files.checkpoint import Lineage
from colbuild.weights.prefix.subset import kept_layers, subset
from tests.weights.helpers import GQA, logits, random_checkpoint, random_ordered, reference_model, shaped

ORDERED = random_ordered()
WHOLE = ORDERED.structure.shape


@st.composite
def shapes(draw, within=WHOLE):
    kv_heads = draw(st.integers(1, within.kv_heads))
    return replace(
        within,
        layers=draw(st.integers(1, within.layers)),
        hidden=draw(st.integers(1, within.hidden)),
        ffn=draw(st.integers(1, within.ffn)),
        kv_heads=kv_heads,
        heads=kv_heads * (within.heads // within.kv_heads),
    )


@st.composite
def nested(draw):
    outer = draw(shapes())
    return outer, draw(shapes(outer))


@given(shapes())
@settings(max_examples=40, deadline=None)
def test_subset_is_a_prefix_of_every_axis(shape):
    small = subset(ORDERED, shape)
    kept = kept_layers(ORDERED.ordered, shape.layers)
    assert len(kept) == shape.layers
    assert list(kept) == sorted(kept)
    for tensor in tensors(small.structure):
        found = small.tensors[tensor.name]
        assert tuple(found.shape) == tensor.lengths
        name = tensor.name
        if tensor.layer is not None:
            name = name.replace(f"layers.{tensor.layer}.", f"layers.{kept[tensor.layer]}.")
        prefix = ORDERED.tensors[name][tuple(slice(0, length) for length in tensor.lengths)]
        if tensor.role is Role.NORM:
            ratio = found / prefix
            torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))
        else:
            assert torch.equal(found, prefix)


@given(nested())
@settings(max_examples=40, deadline=None)
def test_subset_of_a_subset_equals_the_subset(pair):
    outer, inner = pair
    direct, stepwise = subset(ORDERED, inner), subset(subset(ORDERED, outer), inner)
    assert direct.config == stepwise.config
    assert direct.structure == stepwise.structure
    assert direct.ordered.layers == stepwise.ordered.layers
    assert torch.equal(direct.ordered.residual, stepwise.ordered.residual)
    assert direct.tensors.keys() == stepwise.tensors.keys()
    for name, tensor in direct.tensors.items():
        torch.testing.assert_close(stepwise.tensors[name], tensor, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_subset_of_the_whole_shape_is_the_identity(dtype):
    ordered = random_ordered(dtype=dtype)
    same = subset(ordered, ordered.structure.shape)
    assert same.ordered.layers == ordered.ordered.layers
    assert all(torch.equal(same.tensors[name], ordered.tensors[name]) for name in ordered.tensors)
    assert torch.equal(logits(same), logits(ordered))


def test_subset_keeps_the_highest_ranked_layers_in_their_order():
    lineage = Lineage(layers=(0, 1, 2, 3, 4), ranking=(4, 0, 3, 1, 2), residual=torch.ones(11, 4))
    assert kept_layers(lineage, 3) == (0, 3, 4)
    # In a model that has lost layers 1 and 2 already, positions are no longer AnsNet layers.
    assert kept_layers(replace(lineage, layers=(0, 3, 4)), 2) == (0, 2)


def test_subset_loads_in_transformers_and_runs():
    small = subset(ORDERED, shaped(ORDERED, layers=2, hidden=40, ffn=24, heads=4, kv_heads=2))
    model = reference_model(small)  # asserts that no tensor is missing or unknown
    assert sum(p.numel() for p in model.parameters()) == sum(t.numel() for t in small.tensors.values())
    assert bool(torch.isfinite(logits(small)).all())


def test_a_narrower_norm_is_rescaled_to_keep_the_scale_of_its_output():
    ordered = random_ordered()
    hidden = 20
    small = subset(ordered, shaped(ordered, hidden=hidden))
    residual = ordered.ordered.residual
    for site, name in enumerate(norm_sites(ordered.structure)):
        # A residual vector that has just the energies that were measured.
        stream = residual[site].sqrt()
        wide = ordered.tensors[name] * stream / stream.square().mean().sqrt()
        cut = stream[:hidden]
        narrow = small.tensors[name] * cut / cut.square().mean().sqrt()
        torch.testing.assert_close(narrow, wide[:hidden], rtol=1e-5, atol=1e-6)


def test_rescaled_bf16_norms_are_rounded_once():
    ordered = random_ordered(dtype=torch.bfloat16)
    small = subset(ordered, shaped(ordered, hidden=20))
    residual = ordered.ordered.residual.double()
    for site, name in enumerate(norm_sites(ordered.structure)):
        ratio = (residual[site, :20].mean() / residual[site].mean()).sqrt()
        exact = ordered.tensors[name][:20].double() * ratio
        assert torch.equal(small.tensors[name], exact.to(torch.bfloat16))


def test_a_norm_that_saw_nothing_is_left_alone_at_full_width():
    ordered = random_ordered()
    silent = replace(ordered, lineage=replace(ordered.ordered, residual=torch.zeros_like(ordered.ordered.residual)))
    same = subset(silent, shaped(ordered, ffn=8))
    assert torch.equal(same.tensors["model.norm.weight"], ordered.tensors["model.norm.weight"])


def test_shape_outside_the_model_is_an_error():
    with pytest.raises(BuildError, match="not inside"):
        subset(ORDERED, shaped(ORDERED, ffn=WHOLE.ffn + 1))
    with pytest.raises(BuildError, match="not inside"):
        subset(ORDERED, shaped(ORDERED, heads=3, kv_heads=3))


def test_unordered_model_has_no_subsets():
    plain = random_checkpoint(GQA)
    with pytest.raises(BuildError, match="never ordered"):
        subset(plain, plain.structure.shape)


def test_the_input_is_left_as_it_is():
    copies = {name: tensor.clone() for name, tensor in ORDERED.tensors.items()}
    subset(ORDERED, shaped(ORDERED, hidden=20, ffn=8))
    assert all(torch.equal(copies[name], ORDERED.tensors[name]) for name in copies)
