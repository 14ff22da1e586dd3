"""Causal attention in blocks of queries, and documents that do not see each other.

PyTorch's own attention on a CPU takes a third of a training step of a small model. Here each block of queries meets only the
keys up to its own end, in plain matrix products with the heads of a group folded into one::

    queries   0..127   x keys 0..127
            128..255   x keys 0..255      half of the products of the whole square

It is registered with transformers under `BLOCKED`, which a model's configuration then names. The documents of a sequence are
kept apart by a mask and by positions that begin anew, which any attention understands.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

BLOCKED: Final = "colbuild_blocked"
BLOCK: Final = 128
"""Queries at once; of 64, 128 and 256 the fastest on a CPU."""


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
        query: [rows, heads, tokens, head_dim].
        key: [rows, kv_heads, tokens, head_dim]; heads are a multiple of kv_heads.
        value: The same.
        attention_mask: [rows, 1, tokens, tokens], true where a query may look, within what is causal; None: everywhere.
        scaling: What scores are multiplied by; 1 / sqrt(head_dim) by default.
        dropout: 0: nothing here is trained with it.

    Returns:
        ([rows, tokens, heads, head_dim], None).
    """
    rows, heads, tokens, width = query.shape
    kv_heads = key.shape[1]
    scale = width**-0.5 if scaling is None else scaling
    grouped = query.reshape(rows, kv_heads, heads // kv_heads, tokens, width)
    blocks = []
    for start in range(0, tokens, BLOCK):
        stop = min(start + BLOCK, tokens)
        some = (grouped[:, :, :, start:stop] * scale).flatten(2, 3)
        scores = (some @ key[:, :, :stop].transpose(2, 3)).float().reshape(rows, kv_heads, -1, stop - start, stop)
        seen = torch.ones(stop - start, stop, dtype=torch.bool, device=query.device).tril(start)
        if attention_mask is not None:
            seen = (seen & attention_mask[:, :, start:stop, :stop]).unsqueeze(1)
        likely = scores.masked_fill(~seen, float("-inf")).softmax(dim=-1).to(value.dtype)
        found = likely.flatten(2, 3) @ value[:, :, :stop]
        blocks.append(found.reshape(rows, kv_heads, -1, stop - start, width))
    whole = torch.cat(blocks, dim=3).flatten(1, 2)
    return whole.transpose(1, 2).contiguous(), None


def _no_mask(*_: Any, **__: Any) -> None:
    """What is causal needs no mask here."""


AttentionInterface.register(BLOCKED, blocked_attention)
AttentionMaskInterface.register(BLOCKED, _no_mask)


def use_blocked_attention(model: PreTrainedModel) -> bool:
    """Makes a model compute its attention in blocks where that is faster and the same: on a CPU, if all of it is causal.

    Returns:
        Whether it does now.
    """
    config = model.config
    plain = getattr(config, "sliding_window", None) is None and not getattr(config, "attention_chunk_size", None)
    if model.device.type != "cpu" or not plain or not model._supports_attention_backend:
        return False
    model.set_attn_implementation(BLOCKED)
    return True


def apart(documents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What keeps the documents of a sequence apart.

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
