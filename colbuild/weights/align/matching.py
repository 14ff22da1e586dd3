"""Matches the parts of two models: layers in order, channels and heads in any order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import nn

from colbuild.errors import BuildError

LAYER_TOKENS: Final = 1024
"""Tokens that layers are compared on."""


def layers_alike(ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor]) -> torch.Tensor:
    """Returns the similarity of our blocks' outputs with theirs [ours, theirs], independent of the basis.

    Linear CKA (Kornblith et al., arXiv 1905.00414, section 3): the same however channels are permuted or the stream is turned.

    Args:
        ours: What each of our blocks adds [tokens, hidden].
        theirs: The same of the other model.
    """
    own, other = [_evenly(each) for each in ours], [_evenly(each) for each in theirs]
    alike = torch.tensor([[float((one.T @ two).square().sum()) for two in other] for one in own], dtype=torch.float64)
    sizes = [torch.tensor([float((each.T @ each).norm()) for each in some]) for some in (own, other)]
    return alike / (sizes[0][:, None] * sizes[1][None, :]).clamp_min(1e-30)


def match_layers(alike: torch.Tensor) -> tuple[int, ...]:
    """For each of our layers one of theirs, in the same order, so that they are as alike as can be: by dynamic programming.

    Args:
        alike: How alike each of ours is to each of theirs [ours, theirs]; theirs are at least as many.
    """
    count, among = alike.shape
    # best[i, j]: the most that the first i of ours reach among the first j of theirs.
    best = torch.full((count + 1, among + 1), -torch.inf, dtype=torch.float64)
    best[0] = 0.0
    for i in range(1, count + 1):
        for j in range(i, among + 1):
            best[i, j] = torch.maximum(best[i, j - 1], best[i - 1, j - 1] + alike[i - 1, j - 1])
    found, j = [], among
    for i in range(count, 0, -1):
        while j > i and best[i, j - 1] >= best[i, j]:
            j -= 1
        found.append(j - 1)
        j -= 1
    return tuple(reversed(found))


def _evenly(activations: torch.Tensor) -> torch.Tensor:
    """Every token as long as the others, about their mean: a few tokens would decide alone else."""
    some = nn.functional.normalize(activations[:LAYER_TOKENS], dim=1)
    return some - some.mean(dim=0)


def assign(alike: torch.Tensor) -> torch.Tensor:
    """The assignment of rows to columns, one to one, whose entries add up to the most.

    Args:
        alike: How alike a row is to a column [n, n].

    Returns:
        For each column, its row [n]: the order in which rows are to be taken.

    Raises:
        BuildError: scipy is not installed.
    """
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError:
        raise BuildError(
            "aligning a checkpoint needs scipy, which is not installed", hint="pip install 'colbuild[align]'"
        ) from None
    rows, columns = linear_sum_assignment(alike.double().numpy(), maximize=True)
    order = torch.empty(len(rows), dtype=torch.int64)
    order[torch.from_numpy(columns)] = torch.from_numpy(rows)
    return order


def channels_alike(
    ours: torch.Tensor, our_writes: torch.Tensor, theirs: torch.Tensor, their_writes: torch.Tensor
) -> torch.Tensor:
    """Returns the similarity of our FFN channels' outputs with theirs [n, n].

    What a channel writes on a token is its activation times its column of the output projection.

    Args:
        ours: Activations [tokens, n].
        our_writes: What an activation of 1 adds to the residual stream [hidden, n].
        theirs: The other model's activations [tokens, at least n]; its first n are compared.
        their_writes: As ours [hidden, at least n].
    """
    count = ours.shape[1]
    theirs, their_writes = theirs[:, :count], their_writes[:, :count]
    alike = (ours.T @ theirs) * (our_writes.T @ their_writes)
    own, other = (
        each.norm(dim=0) * writes.norm(dim=0) for each, writes in ((ours, our_writes), (theirs, their_writes))
    )
    found: torch.Tensor = alike / (own[:, None] * other[None, :]).clamp_min(1e-30)
    return found


def match_heads(
    ours: torch.Tensor, our_writes: torch.Tensor, theirs: torch.Tensor, their_writes: torch.Tensor, group: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same for heads, which move in whole groups that share keys and values.

    Args:
        ours: What heads feed into the output projection [tokens, heads, head_dim].
        our_writes: What that adds to the residual stream [hidden, heads, head_dim].
        theirs: As ours, of at least as many heads.
        their_writes: As ours.
        group: Heads in a group.

    Returns:
        (order of heads [heads], order of groups [heads / group]).
    """
    count = ours.shape[1]
    theirs, their_writes = theirs[:, :count], their_writes[:, :count]
    alike = _heads_alike(ours, our_writes, theirs, their_writes)
    own, other = (
        _heads_alike(each, writes, each, writes).diagonal().sqrt()
        for each, writes in ((ours, our_writes), (theirs, their_writes))
    )
    alike = alike / (own[:, None] * other[None, :]).clamp_min(1e-30)
    groups = count // group
    blocks = alike.view(groups, group, groups, group)
    within = [[assign(blocks[one, :, two]) for two in range(groups)] for one in range(groups)]
    totals = torch.tensor(
        [
            [float(blocks[one, :, two][within[one][two], torch.arange(group)].sum()) for two in range(groups)]
            for one in range(groups)
        ]
    )
    order = assign(totals)
    heads = [int(one) * group + within[int(one)][two] for two, one in enumerate(order)]
    return torch.cat(heads), order


def _heads_alike(
    ours: torch.Tensor, our_writes: torch.Tensor, theirs: torch.Tensor, their_writes: torch.Tensor
) -> torch.Tensor:
    """Inner products of what heads write over all tokens [heads, heads], without ever making that."""
    inner = ours.flatten(1).T @ theirs.flatten(1)
    outer = our_writes.flatten(1).T @ their_writes.flatten(1)
    _, heads, width = ours.shape
    return (inner * outer).view(heads, width, heads, width).sum(dim=(1, 3))
