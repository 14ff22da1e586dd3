"""Writes texts with a model, in batches, with a key/value cache."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.nn import functional
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from colbuild.errors import BuildError
from colbuild.process_memory import give_back_pages

_TIDY: Final = 64
"""Tokens after which holes in the heap are given back: in some models a tensor grows with every token, and fits no hole."""

_BLOCK: Final = 512
"""Tokens whose probabilities are summed as one."""


@dataclass(frozen=True)
class Text:
    """A text that a model has written.

    Attributes:
        ids: Its token ids, the beginning included and without the id that ended it.
        nats: The negative log-likelihood of each that was drawn, the last ones, as the model had it then.
    """

    ids: list[int]
    nats: list[float]

    @property
    def drawn(self) -> int:
        """The number of sampled ids."""
        return len(self.nats)


@torch.no_grad()
def draw_texts(
    model: PreTrainedModel,
    starts: Sequence[Sequence[int]],
    length: int,
    ends: set[int],
    *,
    temperature: float,
    seed: int,
    check: Callable[[], None] = lambda: None,
) -> list[Text]:
    """Goes on with some beginnings at once.

    Beginnings of different lengths run side by side: what all have is read at once, and a row that still has tokens of its own
    then takes those instead of drawing any. A row that has ended is taken out of the batch, once a quarter of the rows have.

    Args:
        model: The model.
        starts: Token ids of each beginning, at least one.
        length: Tokens of a text at most, its beginning's first one not counted.
        ends: Ids after which a text is over.
        temperature: Divides the logits.
        seed: Decides what is drawn. A row's text does not depend on when others end.
        check: Called before each token; an error that it raises ends the work.

    Returns:
        A text for each beginning.

    Raises:
        BuildError: The model computes NaN or infinity.
    """
    device = next(model.parameters()).device
    read = min(len(start) for start in starts)
    chances = torch.rand(length + 1, len(starts), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    texts = [Text(list(start[:read]), []) for start in starts]
    rows = list(range(len(starts)))
    cache = roomy_cache(model, length + 1)
    kept = cache_argument(model)
    fed = torch.tensor([text.ids for text in texts], device=device)
    over: set[int] = set()
    for place in range(read, length + 1):
        check()
        if place % _TIDY == 0:
            give_back_pages()
        logits = model(input_ids=fed, use_cache=True, logits_to_keep=1, **{kept: cache}).logits[:, -1].cpu()
        drawn = drawn_tokens(logits, temperature, chances[place, rows])
        following = []
        for row, (index, cost) in zip(rows, drawn, strict=True):
            given = place < len(starts[row])
            token = starts[row][place] if given else index
            following.append(token)
            if row in over:
                continue
            if not given and token in ends:
                over.add(row)
                continue
            texts[row].ids.append(token)
            if not given:
                texts[row].nats.append(cost)
        if len(over) == len(starts):
            break
        left = [at for at, row in enumerate(rows) if row not in over]
        if len(left) <= 0.75 * len(rows):
            cache.batch_select_indices(torch.tensor(left, device=device))
            rows, following = [rows[at] for at in left], [following[at] for at in left]
        fed = torch.tensor([[token] for token in following], device=device)
    return texts


def drawn_tokens(
    logits: torch.Tensor,
    temperature: float,
    chances: torch.Tensor,
    damaged: str = "the AnsNet computes NaN or infinity: its weights are damaged",
) -> list[tuple[int, float]]:
    """A token for each row of logits [rows, vocabulary] and number in [0, 1), and what it costs in nats at temperature 1.

    One number a row, looked up among the sums of the probabilities, instead of one for each token of the vocabulary.
    """
    rows, size = logits.shape
    # In whole blocks, in one place, and not normalised: each pass over the vocabulary for many rows takes as long as a layer.
    likely = logits.new_empty((rows, -(-size // _BLOCK) * _BLOCK), dtype=torch.float32)
    likely[:, :size], likely[:, size:] = logits, -torch.inf
    whole = None if temperature == 1.0 else likely.logsumexp(dim=-1)
    if whole is not None:
        likely /= temperature
    peak = likely.amax(dim=-1, keepdim=True)
    blocks = likely.sub_(peak).exp_().reshape(rows, -1, _BLOCK)
    # Sums of whole blocks first, then those within one of them: sums over a whole vocabulary take longer than all the rest.
    sums = blocks.sum(dim=-1).double().cumsum(dim=-1)
    if whole is None:
        whole = (peak + sums[:, -1:].log()).squeeze(1)
    if not torch.isfinite(whole).all():
        raise BuildError(damaged, hint="run colbuild cache verify")
    wanted = chances[:, None] * sums[:, -1:]
    block = _reached(sums, wanted)
    before = functional.pad(sums, (1, 0)).gather(1, block)
    within = blocks[torch.arange(rows), block.squeeze(1)].double().cumsum(dim=-1)
    found = block * _BLOCK + _reached(within, wanted - before)
    costs = whole - logits.gather(1, found).squeeze(1)
    return list(zip(found.squeeze(1).tolist(), costs.tolist(), strict=True))


def _reached(sums: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Where sums [rows, count] first lie above what is wanted of each row [rows, 1], or else where they end to grow."""
    end = (sums >= sums[:, -1:]).int().argmax(dim=1, keepdim=True)
    return torch.minimum(torch.searchsorted(sums, wanted, right=True), end)


class _Roomy(DynamicLayer):  # type: ignore[misc]
    """Keys and values of a layer in a room that is made once, instead of copied to a longer one with every token."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Adds keys and values [rows, heads, tokens, width]; returns all of them."""
        seen = self.get_seq_length()
        if not seen:
            self.lazy_initialization(key_states, value_states)
            self.rooms = [self._room(states) for states in (key_states, value_states)]
        upto = seen + key_states.shape[2]
        for room, states in zip(self.rooms, (key_states, value_states), strict=True):
            room[:, :, seen:upto] = states
        self.keys, self.values = (room[:, :, :upto] for room in self.rooms)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keeps some of the rows."""
        upto = self.get_seq_length()
        self.rooms = [room[indices] for room in self.rooms]
        self.keys, self.values = (room[:, :, :upto] for room in self.rooms)

    def _room(self, states: torch.Tensor) -> torch.Tensor:
        rows, heads, _, width = states.shape
        return states.new_zeros(rows, heads, self.length, width)


def cache_argument(model: PreTrainedModel) -> str:
    """Returns the name under which a model's forward pass takes a cache: since transformers 5.24 it is the shorter one."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


def roomy_cache(model: PreTrainedModel, length: int, *, whole: bool = False) -> DynamicCache:
    """An empty cache with room for texts of this length; a layer that sees a window alone keeps its own, unless `whole`."""
    cache = DynamicCache(config=model.config)
    cache.layers = [_Roomy(length) if whole or type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
