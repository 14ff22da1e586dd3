"""Attention with a cache, padding and pieces is what plain transformers computes for each text alone, on every architecture."""

from __future__ import annotations

import functools

import pytest
import torch
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, StaticCache

from colbuild.arch import ARCHITECTURES
from colbuild.ops.shared.running_models import running_model
from colbuild.ops.shared.text_writing import cache_argument
from colbuild.train.losses import attention
from colbuild.train.losses.attention import BLOCKED, blocked_attention
from tests.weights.helpers import config_of, random_checkpoint

WIDTH = 16
LENGTHS = (9, 16, 12)
PIECES = {
    "whole": (16,),
    "one by one": (1,) * 16,
    "many, then one by one": (10, 1, 1, 1, 1, 1, 1),
    "many and many": (7, 9),
}
CACHES = {
    "dynamic": lambda config: DynamicCache(config=config),
    "static": lambda config: StaticCache(config=config, max_cache_len=WIDTH + 7),
}


@functools.cache
def checkpoint(name):
    return random_checkpoint(config_of(name), seed=4)


@functools.cache
def model_of_steps(name):
    return running_model(checkpoint(name), torch.float32, torch.device("cpu"))


@functools.cache
def texts(name):
    generator = torch.Generator().manual_seed(7)
    vocabulary = checkpoint(name).structure.shape.vocab
    return [torch.randint(0, vocabulary, (length,), generator=generator) for length in LENGTHS]


@functools.cache
@torch.no_grad()
def alone(name):
    """What transformers' eager attention computes for each text by itself, in one pass and without a cache."""
    settings = AutoConfig.for_model(**checkpoint(name).config)
    plain = AutoModelForCausalLM.from_config(settings, attn_implementation="eager", dtype=torch.float32).eval()
    plain.load_state_dict(checkpoint(name).tensors, strict=False)
    plain.tie_weights()
    return [plain(input_ids=text[None], use_cache=False).logits[0] for text in texts(name)]


def padded(name, side):
    """(tokens, mask), both [texts, WIDTH]; with no padding only the text that needs none."""
    if side == "no":
        return texts(name)[1][None], torch.ones(1, WIDTH, dtype=torch.long)

    def pad(row):
        room = WIDTH - len(row)
        return functional.pad(row, (room, 0) if side == "left" else (0, room), value=0)

    rows = texts(name)
    return torch.stack([pad(row) for row in rows]), torch.stack([pad(torch.ones_like(row)) for row in rows])


@torch.no_grad()
def fed(model, tokens, mask, pieces, cache, *, said):
    """Logits [texts, WIDTH, vocabulary], fed in pieces; `said`: whether the mask is passed."""
    kept = cache_argument(model)
    positions, found, at = (mask.cumsum(1) - 1).clamp(min=0), [], 0
    for piece in pieces:
        here = slice(at, at + piece)
        found.append(
            model(
                input_ids=tokens[:, here],
                attention_mask=mask[:, : at + piece] if said else None,
                position_ids=positions[:, here],
                use_cache=cache is not None,
                **({} if cache is None else {kept: cache}),
            ).logits
        )
        at += piece
    return torch.cat(found, dim=1)


def agrees(name, found, mask):
    assert torch.isfinite(found).all()
    expected = alone(name) if len(found) > 1 else alone(name)[1:2]
    for row, real, one in zip(found, mask.bool(), expected, strict=True):
        torch.testing.assert_close(row[real], one, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", list(ARCHITECTURES))
@pytest.mark.parametrize("side", ["no", "left", "right"])
def test_with_a_cache_in_any_pieces_it_is_as_if_each_text_were_alone_and_whole(name, side, monkeypatch):
    monkeypatch.setattr(attention, "QUERIES", 4)
    model, (tokens, mask) = model_of_steps(name), padded(name, side)
    agrees(name, fed(model, tokens, mask, (WIDTH,), None, said=True), mask)
    for pieces in PIECES.values():
        for cache in CACHES.values():
            for said in (True, False) if side == "no" else (True,):
                agrees(name, fed(model, tokens, mask, pieces, cache(model.config), said=said), mask)


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_texts_that_only_their_positions_keep_apart_are_each_alone(name):
    """transformers takes positions that begin anew for texts packed into one row."""
    tokens = torch.cat(texts(name))[None]
    positions = torch.cat([torch.arange(length) for length in LENGTHS])[None]
    with torch.no_grad():
        found = model_of_steps(name)(input_ids=tokens, position_ids=positions, use_cache=False).logits[0]
    torch.testing.assert_close(found, torch.cat(alone(name)), rtol=1e-4, atol=1e-4)


def test_a_step_runs_all_that_is_causal_in_blocks():
    blocked = {name for name in ARCHITECTURES if model_of_steps(name).config._attn_implementation == BLOCKED}
    assert blocked == set(ARCHITECTURES) - {"gemma3_text"}  # its layers have windows


@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (1, 2), (1, 300), (3, 300), (128, 300), (129, 130), (200, 500)])
@pytest.mark.parametrize("masked", ["not at all", "bool", "bool of each head", "added"])
def test_queries_are_the_last_of_the_keys(queries, keys, masked):
    generator = torch.Generator().manual_seed(keys)

    def draw(heads, length):
        return torch.randn(2, heads, length, 16, generator=generator, dtype=torch.float64)

    query, key, value = draw(6, queries), draw(2, keys), draw(2, keys)
    seen = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries).expand(2, 6, -1, -1)
    given = None
    if masked != "not at all":
        seen = seen & (torch.rand(2, 6 if "each" in masked else 1, queries, keys, generator=generator) < 0.7)
        seen = seen | torch.eye(queries, keys, dtype=torch.bool).roll(keys - queries, 1)
        seen = seen if "each" in masked else seen[:, :1]
        given = torch.zeros(seen.shape).masked_fill(~seen, -torch.inf) if masked == "added" else seen
    found, _ = blocked_attention(torch.nn.Identity(), query, key, value, given)
    expected = functional.scaled_dot_product_attention(query, key, value, attn_mask=seen, enable_gqa=True).transpose(
        1, 2
    )
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
