"""The same function in other coordinates: what aligning has to undo."""

from __future__ import annotations

from dataclasses import replace

import torch

from colbuild.arch import Role, tensors
from colbuild.weights.files.checkpoint import Checkpoint
from colbuild.weights.prefix.rotation import turn
from colbuild.weights.prefix.selection import select


def permuted(checkpoint: Checkpoint, seed: int, *, hidden: bool = True) -> Checkpoint:
    """Residual channels, FFN channels and groups of heads in a random order; no lineage."""
    generator = torch.Generator().manual_seed(seed)
    structure, shape = checkpoint.structure, checkpoint.structure.shape

    def shuffled(count: int) -> torch.Tensor:
        return torch.randperm(count, generator=generator)

    stream = {"hidden": shuffled(shape.hidden)} if hidden else {}
    weights, inner = {}, []
    for _ in range(shape.layers):
        groups = shuffled(shape.kv_heads)
        heads = torch.arange(shape.heads).view(shape.kv_heads, -1)[groups].reshape(-1)
        inner.append({"ffn": shuffled(shape.ffn), "heads": heads, "kv_heads": groups})
    for tensor in tensors(structure):
        selection = stream if tensor.layer is None else {**stream, **inner[tensor.layer]}
        weights[tensor.name] = select(checkpoint.tensors[tensor.name], tensor.axes, selection, structure.lengths)
    return replace(checkpoint, tensors=weights, lineage=None)


def turned(checkpoint: Checkpoint, seed: int) -> Checkpoint:
    """Its residual stream turned at random, FFN channels and heads in a random order; no lineage."""
    generator = torch.Generator().manual_seed(seed)
    hidden = checkpoint.structure.shape.hidden
    rotation, _ = torch.linalg.qr(torch.randn(hidden, hidden, generator=generator, dtype=torch.float64))
    norms = {
        tensor.name: torch.ones(hidden, dtype=torch.float64)
        for tensor in tensors(checkpoint.structure)
        if tensor.role is Role.NORM
    }
    weights = {name: tensor.double() for name, tensor in checkpoint.tensors.items()}
    found = turn(weights, checkpoint.structure, rotation, norms)
    stored = {name: found[name].to(tensor.dtype).contiguous() for name, tensor in checkpoint.tensors.items()}
    return permuted(replace(checkpoint, tensors=stored), seed + 1, hidden=False)
