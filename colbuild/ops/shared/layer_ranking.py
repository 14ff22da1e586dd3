"""The ranking of a model's layers: removed one after the other, each time the one whose loss changes the predictions least.

Block Influence scores each layer in the whole model. Two layers that replace each other both score low there, so removing both
by their scores costs more than each alone. Here a layer is scored in the model without the layers that were removed before it
(as in SLEB, arXiv 2402.09025, section 3), by KL(whole model || model without the layer) on calibration tokens.

What a layer costs beyond the removed ones hardly falls from one removal to the next, so a layer is scored again only while
its last cost is below the best new one (lazy greedy, Minoux 1978). The neighbours of the layer that was removed last are
scored in any case: several in a row often cost less than their parts. Each scoring begins at the layer in question, with the
states that the layers before it have put out.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn
from transformers import PreTrainedModel

from colbuild.arch import Structure, norm_sites
from colbuild.arch.scalars import scalars_of
from colbuild.plan.workload.at_once import CHUNK_TOKENS, RANKED_TOKENS, RANKED_WINDOW, SCORINGS
from colbuild.progress import Progress, Report
from colbuild.train.losses.forward import final_hidden, head_weight
from colbuild.train.losses.hidden_cosine import blocks_of

_ROWS: Final = 16
"""Tokens whose logits are gone over at once: in fp32 they stay in a core's cache."""


@dataclass(frozen=True, eq=False)
class _Call:
    """What a block was called with, besides the states [windows, length, hidden]."""

    more: tuple[Any, ...]
    named: dict[str, Any]


class _Model:
    """A model whose blocks can be left out."""

    def __init__(self, model: PreTrainedModel, structure: Structure, windows: torch.Tensor) -> None:
        self._blocks = blocks_of(model, structure)
        self._norm: nn.Module = model.get_submodule(norm_sites(structure)[-1].rpartition(".")[0])
        self._head = head_weight(model)
        self._calls: list[_Call] = []
        self._divisor = scalars_of(structure, model.config.to_dict()).logits
        self.begin, whole = self._first_pass(model, windows)
        self._expected = self._expectation(whole)
        self.base = self._cross_entropy(whole)

    def through(self, layers: Sequence[int], states: torch.Tensor) -> torch.Tensor:
        """The states after some blocks, one after the other."""
        for layer in layers:
            states = self.after(layer, states)
        return states

    def after(self, layer: int, states: torch.Tensor) -> torch.Tensor:
        """The states after one block."""
        call = self._calls[layer]
        output = self._blocks[layer](states, *call.more, **call.named)
        found: torch.Tensor = output[0] if isinstance(output, tuple) else output
        return found

    def distance(self, states: torch.Tensor) -> float:
        """KL(whole model || model that ends in these states) plus `base`, the mean over tokens in nats."""
        return self._cross_entropy(self._norm(states).flatten(0, 1) / self._divisor)

    def _cross_entropy(self, hidden: torch.Tensor) -> float:
        """The mean cross-entropy of the whole model's distribution with that of final hidden states [tokens, hidden].

        With p of the whole model, z = W h and f the logarithm of the sum of exp(z), the cross-entropy is f - p . z, and p . z
        is h . (p W): one product with the head, and one pass over its logits.
        """
        total = -float((hidden.float() * self._expected).sum())
        for some in torch.split(hidden, CHUNK_TOKENS):
            total += sum(
                float(rows.float().logsumexp(dim=-1).sum()) for rows in torch.split(some @ self._head.T, _ROWS)
            )
        return total / len(hidden)

    def _expectation(self, whole: torch.Tensor) -> torch.Tensor:
        """The head's mean row under the whole model's distribution, p W, for each token [tokens, hidden]."""
        found = []
        for some in torch.split(whole, CHUNK_TOKENS):
            likely = some @ self._head.T
            for rows in torch.split(likely, _ROWS):
                rows.copy_(rows.float().softmax(dim=-1))
            found.append((likely @ self._head).float())
        return torch.cat(found)

    def _first_pass(self, model: PreTrainedModel, windows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(states before the first block, final hidden states [tokens, hidden]); keeps what blocks are called with."""
        begin: list[torch.Tensor] = []

        def keep(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            first, more = (given[0], given[1:]) if given else (named["hidden_states"], ())
            begin.append(first)
            self._calls.append(_Call(more, {name: value for name, value in named.items() if name != "hidden_states"}))

        handles = [block.register_forward_pre_hook(keep, with_kwargs=True) for block in self._blocks]
        try:
            whole = final_hidden(model, windows)
        finally:
            for handle in handles:
                handle.remove()
        return begin[0], whole


@torch.no_grad()
def rank_layers(model: PreTrainedModel, structure: Structure, windows: torch.Tensor, report: Report) -> tuple[int, ...]:
    """Ranks a model's layers, the last one to be removed first.

    Args:
        model: The model; bf16 is exact enough for a ranking.
        structure: Its structure.
        windows: Calibration tokens [windows, length]; of `RANKED_TOKENS` the first `RANKED_WINDOW` of each are read.
        report: Told after each removal.
    """
    seen = windows[:, :RANKED_WINDOW]
    seen = seen[: max(1, RANKED_TOKENS // seen.shape[1])]
    able = _Model(model, structure, seen)
    kept, removed, base = list(range(structure.shape.layers)), list[int](), able.base
    waiting, before = [(0.0, layer) for layer in kept], [able.begin]
    while len(kept) > 1:
        # The states up to the layer that was removed last are as they were.
        for layer in kept[len(before) - 1 : -1]:
            before.append(able.after(layer, before[-1]))
        scored = list[tuple[float, int]]()
        heapq.heapify(waiting)
        # The first time each layer is scored; afterwards those that may be the best.
        while waiting and (not removed or (len(scored) < SCORINGS and not _found(scored, base + waiting[0][0]))):
            _, layer = heapq.heappop(waiting)
            rest = kept[kept.index(layer) + 1 :]
            scored.append((able.distance(able.through(rest, before[len(kept) - len(rest) - 1])), layer))
        distance, best = min(scored)
        beside = _neighbours(kept, best)
        del before[kept.index(best) + 1 :]
        removed.append(best)
        kept.remove(best)
        # What a layer costs beyond those that are removed, as it was when it was last scored.
        costs = [*waiting, *((score - base, layer) for score, layer in scored if layer != best)]
        waiting = [(-math.inf if layer in beside else cost, layer) for cost, layer in costs]
        base = distance
        report(Progress(len(removed), structure.shape.layers - 1, "layers", "ranking layers"))
    return (*kept, *reversed(removed))


def _found(scored: Sequence[tuple[float, int]], expected: float) -> bool:
    """Returns whether a layer was scored that is better than what the next one is expected to be."""
    return bool(scored) and min(scored)[0] <= expected


def _neighbours(kept: Sequence[int], layer: int) -> set[int]:
    """The kept layers right before and after one of them; without it, the next of these often costs less."""
    place = kept.index(layer)
    return {*kept[max(0, place - 1) : place], *kept[place + 1 : place + 2]}
