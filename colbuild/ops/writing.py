"""Texts that a model writes, many at once, their keys and values kept."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import DynamicCache, PreTrainedModel

from colbuild.errors import BuildError


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
        """How many ids were drawn."""
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
    cache = DynamicCache(config=model.config)
    # Since transformers 5.24 it has the shorter name.
    kept = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
    fed = torch.tensor([text.ids for text in texts], device=device)
    over: set[int] = set()
    for place in range(read, length + 1):
        check()
        logits = model(input_ids=fed, use_cache=True, logits_to_keep=1, **{kept: cache}).logits[:, -1].float().cpu()
        drawn = _drawn(logits, temperature, chances[place, rows])
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


def _drawn(logits: torch.Tensor, temperature: float, chances: torch.Tensor) -> list[tuple[int, float]]:
    """A token for each row of logits [rows, vocabulary] and number in [0, 1), and what it costs in nats at temperature 1.

    One number a row, looked up among the sums of the probabilities, instead of one for each token of the vocabulary.
    """
    whole = logits.logsumexp(dim=-1)
    if not torch.isfinite(whole).all():
        raise BuildError(
            "the AnsNet computes NaN or infinity: its weights are damaged", hint="run colbuild cache verify"
        )
    sums = (logits / temperature).softmax(dim=-1).cumsum(dim=-1, dtype=torch.float64)
    found = torch.searchsorted(sums, chances[:, None] * sums[:, -1:], right=True).clamp(max=logits.shape[1] - 1)
    costs = whole - logits.gather(1, found).squeeze(1)
    return list(zip(found.squeeze(1).tolist(), costs.tolist(), strict=True))
