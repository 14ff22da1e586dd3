"""Converts a block to another architecture, exactly if it has every part.

What has no place is folded into what has one: a norm inside a block into the projection before it, as well as a constant can
stand for the length that the norm reads; a LayerNorm's bias into the biases of the projections that read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from colbuild.arch import Role, Structure, scalars_of, tensors
from colbuild.arch.correspondence import biased
from colbuild.weights.bridge.blocks import Block, Linear, heads_repeated

Lengths = Mapping[str, torch.Tensor]
"""Field of `Block` -> what replaces division by the length that its norm reads: one number, or one for each head."""


@dataclass(frozen=True)
class Change:
    """From one architecture to another.

    Attributes:
        old: What blocks are read from.
        new: What they are written to.
        config: The old model's config.json.
        turned: Channels of a head that the old model's rotary positions turn; None for all of them, or none.
    """

    old: Structure
    new: Structure
    config: Mapping[str, Any]
    turned: int | None = None


def translated(block: Block, change: Change, lengths: Lengths) -> Block:
    """A block with as many key and value heads as the new architecture has, its norms, its positions and its kind of FFN."""
    if change.old.architecture is change.new.architecture:
        return block
    block = _with_heads(_with_rotary(_with_norms(_with_scale(block, change), change, lengths), change), change)
    return _with_ffn(block, change)


# -- norms ------------------------------------------------------------------------------------------------------------


def _with_scale(block: Block, change: Change) -> Block:
    """Queries so long that scores come out right, and branches that write as much as they did, without any scalars."""
    scalars = scalars_of(change.old, change.config)
    if scalars.branch != 1.0:
        times = torch.tensor(scalars.branch)
        block = replace(block, output=_times(block.output, times), down=_times(block.down, times))
    if scalars.attention_width == change.old.shape.head_dim:
        return block
    times = torch.tensor((change.old.shape.head_dim / scalars.attention_width) ** 0.5)
    if block.query_norm is not None:
        return replace(block, query_norm=block.query_norm * times)
    return replace(block, query=_times(block.query, times))


def _with_norms(block: Block, change: Change, lengths: Lengths) -> Block:
    ours = {tensor.role for tensor in tensors(change.new)}
    if Role.HEAD_NORM not in ours:
        query = _by_head(block.query, block.query_norm, lengths.get("query_norm"))
        key = _by_head(block.key, block.key_norm, lengths.get("key_norm"))
        block = replace(block, query=query, key=key, query_norm=None, key_norm=None)
    if Role.BRANCH_NORM not in ours:
        output = _by_channel(block.output, block.attention_end, lengths.get("attention_end"))
        down = _by_channel(block.down, block.ffn_end, lengths.get("ffn_end"))
        block = replace(block, output=output, down=down, attention_end=None, ffn_end=None)
    return block if Role.NORM_BIAS in ours else _without_norm_biases(block)


def _by_head(part: Linear, norm: torch.Tensor | None, lengths: torch.Tensor | None) -> Linear:
    """Queries or keys [heads * head_dim, hidden] multiplied by a norm's weight [head_dim] and a number for each head."""
    if norm is None:
        return part
    heads = len(part.weight) // len(norm)
    each = torch.ones(heads) if lengths is None else lengths
    return _times(part, torch.outer(each.float(), norm.float()).flatten())


def _by_channel(part: Linear, norm: torch.Tensor | None, length: torch.Tensor | None) -> Linear:
    if norm is None:
        return part
    return _times(part, norm.float() * (1.0 if length is None else length.float()))


def _times(part: Linear, rows: torch.Tensor) -> Linear:
    weight = part.weight.float() * (rows[:, None] if rows.ndim else rows)
    return Linear(weight, None if part.bias is None else part.bias.float() * rows)


def _without_norm_biases(block: Block) -> Block:
    """A norm's bias b adds W b to what reads it, which is a bias of that."""
    before, middle = (None if norm is None else norm.bias for norm in (block.attention_norm, block.ffn_norm))
    if block.attention_norm is not None and before is not None:
        query, key, value = (_plus(part, before) for part in (block.query, block.key, block.value))
        block = replace(block, query=query, key=key, value=value, attention_norm=Linear(block.attention_norm.weight))
    if block.ffn_norm is not None and middle is not None:
        gate = None if block.gate is None else _plus(block.gate, middle)
        block = replace(block, gate=gate, up=_plus(block.up, middle), ffn_norm=Linear(block.ffn_norm.weight))
    return block


def _plus(part: Linear, read: torch.Tensor) -> Linear:
    added = part.weight.float() @ read.float()
    return Linear(part.weight, added if part.bias is None else part.bias.float() + added)


# -- attention --------------------------------------------------------------------------------------------------------


def _with_rotary(block: Block, change: Change) -> Block:
    """Heads whose turned channels stand where an architecture that turns all of them has its fastest pairs.

    With the base raised by as much (`rotary_base`), these turn as they did, and the others hardly.
    """
    if change.turned is None or Role.POSITION in {tensor.role for tensor in tensors(change.new)}:
        return block
    width, turned = change.old.shape.head_dim, change.turned
    half, rest = turned // 2, (width - turned) // 2
    fast, slow = range(half), range(turned, turned + rest)
    order = torch.tensor([*fast, *slow, *(at + half for at in fast), *(at + rest for at in slow)])

    def sorted_heads(part: Linear) -> Linear:
        rows = (torch.arange(len(part.weight) // width)[:, None] * width + order).flatten()
        return Linear(part.weight[rows], None if part.bias is None else part.bias[rows])

    return replace(block, query=sorted_heads(block.query), key=sorted_heads(block.key))


def rotary_base(base: float, head_dim: int, turned: int) -> float:
    """The base with which the first pairs of all a head's channels turn as those of a few did."""
    return float(base ** (head_dim / turned))


def _with_heads(block: Block, change: Change) -> Block:
    new, old = change.new.shape, change.old.shape
    ours, theirs = new.heads // new.kv_heads, old.heads // old.kv_heads
    if ours >= theirs:
        return block
    key, value = (heads_repeated(part, old.head_dim, theirs // ours) for part in (block.key, block.value))
    return replace(block, key=key, value=value)


# -- the FFN ----------------------------------------------------------------------------------------------------------


def _with_ffn(block: Block, change: Change) -> Block:
    gated = (change.old.architecture.is_gated, change.new.architecture.is_gated)
    if gated == (True, False) and block.gate is not None:
        return replace(block, gate=None, up=block.gate)
    if gated == (False, True):
        if Role.FFN_IN in biased(change.new):
            # What is let through is multiplied by one, whatever the block reads.
            ones = Linear(torch.zeros_like(block.up.weight), torch.ones(len(block.up.weight)))
            return replace(block, gate=block.up, up=ones)
        # Its own gate: what the activation lets through is squared, and fitted afterwards.
        return replace(block, gate=block.up)
    return block
