"""The gradient of a model's loss on text, outside the training loop."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional
from transformers import PreTrainedModel

from colbuild.plan.workload.at_once import CHUNK_TOKENS
from colbuild.train.batch import IGNORED
from colbuild.train.losses.forward import final_hidden, head_weight


def loss_and_gradient(model: PreTrainedModel, windows: torch.Tensor, asked: torch.Tensor | None = None) -> float:
    """Mean loss in nats per token that is asked for; its gradient is left in the parameters.

    Logits exist for a chunk of tokens at a time. Parameters that need no gradient get none.

    Args:
        model: The model.
        windows: Token ids [windows, length + 1].
        asked: The targets [windows, length], `IGNORED` where nothing is asked; by default each token after the first.
    """
    model.zero_grad(set_to_none=True)
    wanted = windows[:, 1:] if asked is None else asked
    count, total = int((wanted != IGNORED).sum()), 0.0
    head = head_weight(model)
    for window, following in zip(windows, wanted, strict=True):

        def targets(_: torch.Tensor, part: slice, following: torch.Tensor = following) -> torch.Tensor:
            return following[part]

        total += backward_in_chunks(final_hidden(model, window[None, :-1]), head, targets, count=count)
    return total / count


def backward_in_chunks(
    hidden: torch.Tensor,
    head: torch.Tensor,
    targets: Callable[[torch.Tensor, slice], torch.Tensor],
    chunk: int = CHUNK_TOKENS,
    count: int = 1,
) -> float:
    """Sum over tokens of the cross-entropy in nats; its gradient, over `count`, goes back through `hidden`.

    Args:
        hidden: What the head reads [tokens, hidden], with its graph.
        head: [vocabulary, hidden].
        targets: For the logits [chunk, vocabulary] of a part of the tokens, the token ids [chunk] that are right.
        chunk: Tokens whose logits exist at once.
        count: See above.
    """
    total = 0.0
    seen = hidden.detach().requires_grad_()
    for start in range(0, len(seen), chunk):
        part = slice(start, start + chunk)
        logits = (seen[part] @ head.T).float()
        loss = functional.cross_entropy(logits, targets(logits.detach(), part), reduction="sum")
        (loss / count).backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    hidden.backward(seen.grad)  # type: ignore[no-untyped-call]
    return total
