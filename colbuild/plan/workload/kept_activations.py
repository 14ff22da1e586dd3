"""Bytes that a transformer block keeps of each token for the backward pass.

Counted from what autograd saves in the blocks of transformers 5 with the attention of `colbuild.train.losses.attention`
(`tests/train/test_activations.py` compares the two). c is the size of a computed number, 2 or 4::

    norms            RMSNorm   its input in fp32, that normalised, what it puts out        per hidden channel and norm
    queries, output  scaled queries, what attention puts out                                per channel of all heads
    keys, values     once for each block of queries that looks at them                      per channel of all kv heads
    scores           softmax in fp32, and in what is computed with                          per head and key looked at
    feed-forward     gate, its activation, up, their product                                per FFN channel
"""

from __future__ import annotations

from math import ceil

from colbuild.arch import Role, Structure
from colbuild.arch.architecture import patterns
from colbuild.arch.table import SLIDING
from colbuild.plan.workload.at_once import QUERIES


def kept_bytes(model: Structure, sequence: int, computed: int) -> int:
    """Bytes of a token in all blocks.

    Args:
        model: The model.
        sequence: Tokens in a sequence.
        computed: Bytes of a number that is computed with.
    """
    shape = model.shape
    heads, kv_heads = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    block = _norms(model, computed) * shape.hidden + _attention(model, sequence, computed)
    block += _head_norms(model, computed) * (heads + kv_heads)
    block += computed * model.architecture.kept_ffn * shape.ffn
    return shape.layers * block


def _norms(model: Structure, computed: int) -> int:
    """Bytes of a hidden channel in all norms of a block."""
    roles = [pattern.role for pattern in patterns(model) if "{layer}" in pattern.name]
    if Role.NORM_BIAS in roles:
        # LayerNorm is one operation: what it reads and what it puts out.
        return 2 * computed * roles.count(Role.NORM)
    # Without a norm before them, attention and FFN keep what they read of the stream.
    kept = 0 if model.architecture.has_norms_before else 2 * computed
    if model.architecture.floating_norms:
        # Its weight multiplies in fp32; what a branch's norm puts out is added, and not kept.
        return kept + (8 + computed) * roles.count(Role.NORM) + 8 * roles.count(Role.BRANCH_NORM)
    return kept + (4 + 2 * computed) * roles.count(Role.NORM)


def _head_norms(model: Structure, computed: int) -> int:
    """Bytes of a channel of queries and keys in their norms."""
    if not any(pattern.role is Role.HEAD_NORM for pattern in patterns(model)):
        return 0
    return 8 if model.architecture.floating_norms else 4 + computed


def _attention(model: Structure, sequence: int, computed: int) -> int:
    shape = model.shape
    heads, kv_heads = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    if SLIDING in model.architecture.layer_kinds:
        # PyTorch's own attention is used: queries, keys, values and what is put out; a logarithm for each head.
        return 2 * computed * (heads + kv_heads) + 4 * shape.heads
    blocks = ceil(sequence / QUERIES)
    # Of the queries of block b, the first being 1, each looks at b blocks of keys.
    seen = min(sequence, QUERIES * (blocks + 1) / 2)
    copies = (blocks + 1) / 2
    scores = (4 + computed if computed < 4 else 4) * shape.heads * seen
    return round(2 * computed * (heads + kv_heads * copies) + scores)
