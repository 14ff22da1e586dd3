"""Mixing two nested anchors: its corners are functions that we know."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from colbuild.arch import ARCHITECTURES, wide_norms
from colbuild.errors import BuildError
from colbuild.weights.mixing.interpolation import mix, neighbours
from colbuild.weights.mixing.mixture import EXPAND, SUBSET, Mix, even
from colbuild.weights.prefix.subset import subset
from tests.weights.helpers import GQA, config_of, logits, random_ordered, retrained, shaped, smaller_shape

LARGER = random_ordered()
FILLS = ("donor", "zero", "copy")
HALF = Mix(0.5, 0.5, 0.5, 0.0, 0.0)


def anchors(**lengths):
    """The larger anchor and a smaller one, trained away from it."""
    return LARGER, retrained(subset(LARGER, shaped(LARGER, **lengths)), seed=7)


@pytest.mark.parametrize(
    "lengths",
    [{"ffn": 16}, {"heads": 4, "kv_heads": 2}, {"heads": 2, "kv_heads": 1, "ffn": 24}, {"layers": 2}, {"layers": 1}],
    ids=str,
)
def test_expand_computes_the_smaller_anchor(lengths):
    larger, smaller = anchors(**lengths)
    for shape in (shaped(LARGER), shaped(smaller)):
        pair = neighbours(larger, smaller, shape)
        for fill in FILLS:
            expanded = logits(pair.base, mix(pair, even(1.0, fill)))
            torch.testing.assert_close(expanded, logits(smaller), atol=1e-4, rtol=1e-4)


def test_zeros_keep_the_function_of_a_narrower_residual_stream_too():
    larger, smaller = anchors(layers=3, hidden=36, ffn=16)
    pair = neighbours(larger, smaller, shaped(LARGER, hidden=42))
    expanded = logits(pair.base, mix(pair, even(1.0, "zero")))
    torch.testing.assert_close(expanded, logits(smaller), atol=1e-3, rtol=1e-3)


def test_zero_fill_is_the_straight_line_to_zeros():
    """Chain-of-Learngene's own: (1 - alpha) larger + alpha smaller, where the smaller one is 0 wherever it has nothing."""
    larger, smaller = anchors(layers=2, ffn=16)
    pair = neighbours(larger, smaller, shaped(LARGER, layers=3, ffn=24))
    ends = mix(pair, even(1.0, "zero"))
    for name, mixed in mix(pair, even(0.25, "zero")).items():
        torch.testing.assert_close(mixed, 0.75 * pair.base.tensors[name] + 0.25 * ends[name])
    alone = pair.partner.index(None)
    lacking = [name for name in ends if f"layers.{alone}." in name]
    assert lacking
    assert all(not ends[name].any() for name in lacking)
    shared = next(position for position, partner in enumerate(pair.partner) if partner is not None)
    assert not ends[f"model.layers.{shared}.mlp.up_proj.weight"][16:].any()


def test_copies_share_what_the_original_wrote():
    larger, smaller = anchors(ffn=16)
    pair = neighbours(larger, smaller, shaped(LARGER, ffn=40))
    made, block = mix(pair, even(1.0, "copy")), "model.layers.1.mlp"
    up, down = (smaller.tensors[f"{block}.{name}.weight"] for name in ("up_proj", "down_proj"))
    places = torch.arange(40) % 16
    assert torch.equal(made[f"{block}.up_proj.weight"], up[places])
    copies = torch.bincount(places)[places]
    torch.testing.assert_close(made[f"{block}.down_proj.weight"], down[:, places] / copies)


@pytest.mark.parametrize("layer_alphas", [(0.0, 0.25, 0.5, 1.0), (1.0, 0.5, 0.0, 0.75)])
def test_an_alpha_for_each_layer_is_what_one_for_all_is_in_that_layer(layer_alphas):
    larger, smaller = anchors(layers=2, ffn=16)
    pair = neighbours(larger, smaller, shaped(LARGER))
    mixed = mix(pair, Mix(0.5, 0.0, 0.0, 0.0, 0.0, layers=layer_alphas))
    for layer, alpha in enumerate(layer_alphas):
        expected = mix(pair, even(alpha))
        names = [name for name in mixed if f"layers.{layer}." in name]
        assert all(torch.equal(mixed[name], expected[name]) for name in names)
    outside = [name for name in mixed if "layers." not in name]
    assert outside
    assert all(torch.equal(mixed[name], mix(pair, even(0.5))[name]) for name in outside)


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_expansion_keeps_the_function_of_every_architecture(name, fill):
    larger = random_ordered(config_of(name))
    # A norm over all heads sees the donor's too.
    all_heads = larger.structure.architecture.ties_widths or (fill == "donor" and wide_norms(larger.structure))
    heads = larger.structure.shape.kv_heads if all_heads else 1
    smaller = retrained(subset(larger, smaller_shape(larger, layers=2, ffn=16, kv_heads=heads)), seed=4)
    pair = neighbours(larger, smaller, larger.structure.shape)
    expanded = logits(pair.base, mix(pair, even(1.0, fill)))
    torch.testing.assert_close(expanded, logits(smaller), atol=1e-3, rtol=1e-3)


def test_expand_computes_the_smaller_anchor_at_an_untied_head():
    larger = random_ordered(GQA | {"tie_word_embeddings": False}, seed=3)
    smaller = retrained(subset(larger, shaped(larger, layers=3, ffn=16)), seed=8)
    pair = neighbours(larger, smaller, shaped(larger))
    torch.testing.assert_close(logits(pair.base, mix(pair, EXPAND)), logits(smaller), atol=1e-4, rtol=1e-4)


def test_subset_corner_is_the_larger_anchors_subset():
    larger, smaller = anchors(layers=2, hidden=24, ffn=16)
    shape = shaped(LARGER, layers=3, hidden=36, ffn=24)
    mixed = mix(neighbours(larger, smaller, shape), SUBSET)
    expected = subset(larger, shape).tensors
    assert mixed.keys() == expected.keys()
    assert all(torch.equal(mixed[name], expected[name]) for name in expected)


def test_shared_parts_are_mixed_and_the_rest_is_the_donors():
    larger, smaller = anchors(ffn=16)
    pair = neighbours(larger, smaller, shaped(LARGER, ffn=24))
    name = "model.layers.1.mlp.down_proj.weight"
    mixed = mix(pair, HALF)[name]
    shared = (pair.base.tensors[name][:, :16] + smaller.tensors[name]) / 2
    torch.testing.assert_close(mixed[:, :16], shared)
    assert torch.equal(mixed[:, 16:], pair.base.tensors[name][:, 16:])
    quieter = mix(pair, replace(HALF, fill=0.25))[name]
    torch.testing.assert_close(quieter[:, 16:], 0.75 * pair.base.tensors[name][:, 16:])


def test_layers_are_paired_by_where_they_come_from():
    larger, smaller = anchors(layers=2)
    pair = neighbours(larger, smaller, shaped(LARGER, layers=3))
    for layer, partner in zip(pair.base.ordered.layers, pair.partner, strict=True):
        if partner is None:
            assert layer not in smaller.ordered.layers
        else:
            assert smaller.ordered.layers[partner] == layer
    assert pair.partner.count(None) == 1
    assert pair.has_depth
    assert not pair.has_fill


def test_only_coordinates_of_existing_parts_matter():
    larger, smaller = anchors(ffn=16)
    pair = neighbours(larger, smaller, shaped(LARGER))
    assert pair.has_fill
    assert not pair.has_depth
    one, other = mix(pair, replace(HALF, depth=0.0)), mix(pair, replace(HALF, depth=1.0))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("how", [SUBSET, EXPAND, HALF, Mix(0.25, 0.5, 0.75, 0.5, 0.5)])
def test_mixing_leaves_its_inputs_as_they_are(how):
    larger, smaller = anchors(layers=3, hidden=36, ffn=16)
    pair = neighbours(larger, smaller, shaped(LARGER, hidden=42))
    before = [{name: t.clone() for name, t in each.tensors.items()} for each in (larger, smaller, pair.base)]
    mixed = mix(pair, how)
    for tensor in mixed.values():
        tensor.sum()  # read only: a mixture may share memory with its base
    for each, copies in zip((larger, smaller, pair.base), before, strict=True):
        assert all(torch.equal(each.tensors[name], copies[name]) for name in copies)


def test_bf16_anchors_stay_bf16():
    larger = random_ordered(dtype=torch.bfloat16)
    smaller = retrained(subset(larger, shaped(larger, ffn=16)), seed=2)
    mixed = mix(neighbours(larger, smaller, shaped(larger)), HALF)
    assert {tensor.dtype for tensor in mixed.values()} == {torch.bfloat16}


# -- with the nested student that the smaller anchor was cut from ------------------------------------------------------


def segment(**lengths):
    """The larger anchor, the smaller one, and the student it was cut from: the larger one, trained on."""
    student = retrained(LARGER, seed=9)
    return LARGER, subset(student, shaped(LARGER, **lengths)), student


@st.composite
def shapes_in_a_segment(draw):
    """(lengths of the smaller anchor, lengths of a shape between it and the larger one)."""
    whole = LARGER.structure.shape
    lengths = {}
    for axis, least in (("layers", 1), ("hidden", 12), ("ffn", 8)):
        low = draw(st.integers(least, getattr(whole, axis)))
        lengths[axis] = low, draw(st.integers(low, getattr(whole, axis)))
    return {axis: low for axis, (low, _) in lengths.items()}, {axis: high for axis, (_, high) in lengths.items()}


MIXES = st.builds(Mix, *[st.floats(0.0, 1.0)] * 5, nested=st.just(True))


@given(shapes_in_a_segment(), MIXES)
@settings(max_examples=40, deadline=None)
def test_a_nested_mixture_is_a_straight_line_from_subset_to_prefix(lengths, how):
    larger, smaller, student = segment(**lengths[0])
    shape = shaped(LARGER, **lengths[1])
    pair = neighbours(larger, smaller, shape, student)
    alphas = {"mlp": how.mlp, "self_attn": how.attention}
    prefix = subset(student, shape).tensors
    for name, mixed in mix(pair, how).items():
        alpha = next((value for part, value in alphas.items() if f".{part}." in name), how.embedding)
        expected = (1.0 - alpha) * pair.base.tensors[name] + alpha * prefix[name]
        torch.testing.assert_close(mixed, expected, rtol=1e-5, atol=1e-6)


@given(shapes_in_a_segment())
@settings(max_examples=20, deadline=None)
def test_the_ends_of_a_nested_mixture_are_subset_and_prefix(lengths):
    larger, smaller, student = segment(**lengths[0])
    shape = shaped(LARGER, **lengths[1])
    pair = neighbours(larger, smaller, shape, student)
    for how, expected in ((SUBSET, pair.base), (EXPAND, subset(student, shape))):
        mixed = mix(pair, replace(how, nested=True))
        assert mixed.keys() == expected.tensors.keys()
        assert all(torch.equal(mixed[name], expected.tensors[name]) for name in mixed)


def test_at_the_smaller_anchors_shape_the_nested_prefix_is_that_anchor():
    larger, smaller, student = segment(layers=2, hidden=24, ffn=16)
    pair = neighbours(larger, smaller, smaller.structure.shape, student)
    mixed = mix(pair, replace(EXPAND, nested=True))
    assert all(torch.equal(mixed[name], tensor) for name, tensor in smaller.tensors.items())


def test_a_nested_student_changes_no_mixture_with_the_smaller_anchor():
    larger, smaller, student = segment(layers=3, ffn=16)
    shape = shaped(LARGER, ffn=24)
    for how in (SUBSET, HALF, EXPAND):
        without, having = (mix(neighbours(larger, smaller, shape, other), how) for other in (None, student))
        assert all(torch.equal(without[name], having[name]) for name in without)


def test_a_nested_student_that_cannot_reach_the_shape_is_left_out():
    larger, smaller, student = segment(layers=2, ffn=16)
    shape = shaped(LARGER, layers=3, ffn=24)
    assert neighbours(larger, smaller, shape, student).nested is not None
    lower = subset(student, shaped(LARGER, layers=3, ffn=16))
    stranger = random_ordered(seed=5)
    for other in (None, lower, stranger):
        pair = neighbours(larger, smaller, shape, other)
        assert pair.nested is None
        with pytest.raises(BuildError, match="no nested student"):
            mix(pair, replace(HALF, nested=True))


# -- what cannot be mixed ----------------------------------------------------------------------------------------------


def test_shape_outside_the_interval_is_an_error():
    larger, smaller = anchors(ffn=24)
    with pytest.raises(BuildError, match="not inside"):
        neighbours(larger, smaller, shaped(LARGER, ffn=LARGER.structure.shape.ffn + 8))
    with pytest.raises(BuildError, match="not inside"):
        neighbours(larger, smaller, shaped(LARGER, ffn=16))


def test_anchors_of_different_orders_cannot_be_mixed():
    stranger = random_ordered(seed=5)
    assert stranger.ordered.ranking != LARGER.ordered.ranking
    with pytest.raises(BuildError, match="order"):
        neighbours(LARGER, subset(stranger, shaped(stranger, layers=2)), shaped(LARGER, layers=3))
