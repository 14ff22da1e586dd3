"""Causal attention in blocks of queries, with or without a cache, and documents that do not see each other.

PyTorch's own attention on a CPU takes a third of a training step of a small model. Here each block of queries meets only the
keys up to its own end, in plain matrix products with the heads of a group folded into one::

    queries   0..127   x keys 0..127
            128..255   x keys 0..255      half of the products of the whole square

With a cache there are more keys than queries, and the queries are the last of them: query 0 meets `keys - queries` keys before
its own. Only a mask can say otherwise (a static cache is longer than the text in it), so a mask is then followed alone.

It is registered with transformers under `BLOCKED`, which a model's configuration then names. The documents of a sequence are
kept apart by a mask and by restarted positions, which every attention supports.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import sdpa_mask

from colbuild.plan.workload.at_once import QUERIES
from colbuild.train.fused.functions import CausalAttention
from colbuild.train.fused.kernels import fits

BLOCKED: Final = "colbuild_blocked"


def blocked_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention, as transformers calls it.

    Args:
        module: Not used.
        query: [rows, heads, queries, head_dim], the last of the keys' positions unless the mask says otherwise.
        key: [rows, kv_heads, keys, head_dim]; heads are a multiple of kv_heads.
        value: The same.
        attention_mask: [rows, 1 or heads, queries, keys], true where a query may look, or what is added to the scores. With as
            many keys as queries it narrows what is causal; with more keys it stands alone. None: all that is causal.
        scaling: What scores are multiplied by; 1 / sqrt(head_dim) by default.
        dropout: 0: nothing here is trained with it.

    Returns:
        ([rows, queries, heads, head_dim], None).
    """
    rows, heads, tokens, width = query.shape
    kv_heads, keys = key.shape[1:3]
    before = keys - tokens
    scale = width**-0.5 if scaling is None else scaling
    if attention_mask is None and not before and fits(query, key, value):
        fused: torch.Tensor = CausalAttention.apply(query, key, value, scale)  # type: ignore[no-untyped-call]
        return fused.transpose(1, 2).contiguous(), None
    grouped = query.reshape(rows, kv_heads, heads // kv_heads, tokens, width)
    if tokens == 1 and attention_mask is None:
        # Text that is written: a product of matrices would copy all keys and values first, for a single query of each head.
        found = functional.scaled_dot_product_attention(grouped.flatten(2, 3), key, value, scale=scale)
        return found.reshape(rows, 1, heads, width), None
    blocks = []
    for start in range(0, tokens, QUERIES):
        stop = min(start + QUERIES, tokens)
        reach = keys if before and attention_mask is not None else before + stop
        some = (grouped[:, :, :, start:stop] * scale).flatten(2, 3)
        scores = (some @ key[:, :, :reach].transpose(2, 3)).float().reshape(rows, kv_heads, -1, stop - start, reach)
        if attention_mask is None:
            seen = torch.ones(stop - start, reach, dtype=torch.bool, device=query.device).tril(before + start)
            scores = scores.masked_fill(~seen, float("-inf"))
        else:
            scores = _masked(scores, attention_mask[:, :, start:stop, :reach], None if before else start)
        likely = scores.softmax(dim=-1).to(value.dtype)
        found = likely.flatten(2, 3) @ value[:, :, :reach]
        blocks.append(found.reshape(rows, kv_heads, -1, stop - start, width))
    whole = torch.cat(blocks, dim=3).flatten(1, 2)
    return whole.transpose(1, 2).contiguous(), None


def _masked(scores: torch.Tensor, mask: torch.Tensor, start: int | None) -> torch.Tensor:
    """Scores [rows, kv_heads, group, queries, keys] behind a mask.

    What is masked gets the smallest number and not -infinity: a query of padding sees nothing, and must not become NaN.

    Args:
        scores: The scores.
        mask: [rows, 1 or heads, queries, keys], boolean or added.
        start: The first query's position, if only what is causal counts; None: the mask alone decides.
    """
    mask = mask.unsqueeze(2) if mask.shape[1] == 1 else mask.reshape(len(mask), scores.shape[1], -1, *mask.shape[2:])
    if mask.dtype != torch.bool:
        scores, mask = scores + mask, torch.ones_like(mask, dtype=torch.bool)
    if start is not None:
        mask = mask & torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril(start)
    return scores.masked_fill(~mask, torch.finfo(scores.dtype).min)


def _mask_of(**asked: Any) -> torch.Tensor | None:
    """The mask that transformers asks for: none where the queries are the last of the keys and see all before them."""
    plain = asked["attention_mask"] is None and asked.get("allow_is_causal_skip", True)
    if plain and _at_the_end(**asked):
        return None
    # transformers' own rule for leaving a mask out takes the queries of a static cache for the first positions.
    mask: torch.Tensor = sdpa_mask(**{**asked, "allow_is_causal_skip": False})
    return mask


def _at_the_end(
    kv_length: int,
    q_length: int = 0,
    q_offset: int | torch.Tensor = 0,
    cache_position: torch.Tensor | None = None,
    **_: Any,
) -> bool:
    """Returns whether the last query is the last key; before transformers 5.4 positions come as a tensor."""
    if cache_position is not None:
        return int(cache_position[-1]) + 1 == kv_length
    return isinstance(q_offset, int) and q_offset + q_length == kv_length


AttentionInterface.register(BLOCKED, blocked_attention)
AttentionMaskInterface.register(BLOCKED, _mask_of)


def use_blocked_attention(model: PreTrainedModel) -> bool:
    """Makes a model compute its attention in blocks where that is faster and the same: on a CPU, if all of it is causal.

    Returns:
        Whether it does now.
    """
    config = model.config
    plain = getattr(config, "sliding_window", None) is None and not getattr(config, "attention_chunk_size", None)
    plain = plain and getattr(config, "is_causal", True) and not getattr(config, "use_bidirectional_attention", False)
    if model.device.type != "cpu" or not plain or not model._supports_attention_backend:
        return False
    model.set_attn_implementation(BLOCKED)
    return True


def apart(documents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the mask and positions that keep the documents of a sequence apart.

    Args:
        documents: [rows, tokens], rising by one wherever a document begins.

    Returns:
        (mask [rows, 1, tokens, tokens], true where a query may look; positions [rows, tokens], from 0 in each document).
    """
    tokens = documents.shape[1]
    places = torch.arange(tokens, device=documents.device)
    same = documents[:, :, None] == documents[:, None, :]
    begins = torch.ones_like(documents, dtype=torch.bool)
    begins[:, 1:] = documents.diff(dim=1) != 0
    first = torch.where(begins, places, 0).cummax(dim=1).values
    return (same & (places[:, None] >= places))[:, None], places - first
