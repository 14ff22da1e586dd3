"""A model's shape: the lengths of its named axes, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Shape:
    """The lengths of a decoder's named axes.

    Attributes:
        layers: Transformer blocks.
        hidden: Width of the residual stream.
        ffn: Width of each block's feed-forward part.
        heads: Query heads.
        kv_heads: Key/value heads; `heads` is a multiple of it.
        head_dim: Width of one head.
        vocab: Rows of the embedding.
    """

    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
