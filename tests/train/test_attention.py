"""Attention in blocks is causal attention; documents that are apart do not see each other."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from colbuild.train.losses.attention import BLOCKED, apart, blocked_attention, use_blocked_attention
from colbuild.train.losses.forward import final_hidden
from tests.train.helpers import tiny_llama


def inputs(tokens, heads, kv_heads, dtype=torch.float32):
    torch.manual_seed(tokens)
    return [torch.randn(2, count, tokens, 16, dtype=dtype, requires_grad=True) for count in (heads, kv_heads, kv_heads)]


def plain(query, key, value, mask=None):
    return functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=mask is None, enable_gqa=True
    ).transpose(1, 2)


@pytest.mark.parametrize("tokens", [1, 5, 127, 128, 129, 300])
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (6, 2), (3, 1)])
def test_it_is_causal_attention_and_so_is_its_gradient(tokens, heads, kv_heads):
    ours, theirs = (inputs(tokens, heads, kv_heads, torch.float64) for _ in range(2))
    found, _ = blocked_attention(torch.nn.Identity(), *ours, None)
    expected = plain(*theirs)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    weights = torch.randn_like(found)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-5)


def test_in_bf16_it_is_at_most_twice_as_far_from_exact_as_pytorchs_own():
    exact = plain(*inputs(300, 6, 2))
    rough = [tensor.detach().bfloat16() for tensor in inputs(300, 6, 2)]
    ours, theirs = blocked_attention(torch.nn.Identity(), *rough, None)[0], plain(*rough)
    assert (ours - exact).abs().max() < 2.0 * (theirs - exact).abs().max()


def test_a_mask_narrows_what_is_causal():
    documents = torch.tensor([[0] * 100 + [1] * 150 + [2] * 50, [0] * 1 + [1] * 298 + [2]])
    mask, _ = apart(documents)
    ours = inputs(300, 6, 2)
    torch.testing.assert_close(
        blocked_attention(torch.nn.Identity(), *ours, mask)[0], plain(*ours, mask), rtol=1e-4, atol=1e-5
    )


def test_positions_begin_anew_with_each_document():
    _, positions = apart(torch.tensor([[4, 4, 5, 6, 6, 6], [0, 1, 1, 1, 1, 2]]))
    assert positions.tolist() == [[0, 1, 0, 0, 1, 2], [0, 0, 1, 2, 3, 0]]


@pytest.mark.parametrize("blocked", [True, False])
def test_documents_apart_are_as_if_each_were_alone(blocked):
    model = tiny_llama(1)
    if blocked:
        assert use_blocked_attention(model)
    tokens = torch.randint(0, 40, (1, 40))
    documents = torch.tensor([[0] * 15 + [1] * 25])
    found = final_hidden(model, tokens, documents)
    alone = torch.cat([final_hidden(model, tokens[:, :15]), final_hidden(model, tokens[:, 15:])])
    torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-5)
    joined = final_hidden(model, tokens)
    torch.testing.assert_close(joined[:15], alone[:15], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(joined[15:], alone[15:], atol=1e-2)


def test_a_model_computes_the_same_in_blocks():
    model, tokens = tiny_llama(1), torch.randint(0, 40, (3, 60))
    before = final_hidden(model, tokens)
    assert use_blocked_attention(model)
    assert model.config._attn_implementation == BLOCKED
    torch.testing.assert_close(final_hidden(model, tokens), before, rtol=1e-5, atol=1e-5)


def test_what_is_not_all_causal_is_left_alone():
    model = tiny_llama(1)
    model.config.sliding_window = 16
    assert not use_blocked_attention(model)
    assert model.config._attn_implementation != BLOCKED
