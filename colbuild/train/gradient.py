"""The gradient of a model's loss on text, for what is not trained by the loop."""

from __future__ import annotations

import torch
from torch.nn import functional
from transformers import PreTrainedModel

from colbuild.train.forward import CHUNK_TOKENS, final_hidden, head_weight


def loss_and_gradient(model: PreTrainedModel, windows: torch.Tensor) -> float:
    """Mean loss in nats per token over windows [windows, length + 1]; its gradient is left in the parameters.

    Logits exist for a chunk of tokens at a time. Parameters that need no gradient get none.
    """
    model.zero_grad(set_to_none=True)
    count, total = windows[:, 1:].numel(), 0.0
    head = head_weight(model)
    for window in windows:
        hidden = final_hidden(model, window[None, :-1])
        seen = hidden.detach().requires_grad_()
        for start in range(0, len(seen), CHUNK_TOKENS):
            part = slice(start, start + CHUNK_TOKENS)
            logits = (seen[part] @ head.T).float()
            loss = functional.cross_entropy(logits, window[1:][part], reduction="sum")
            (loss / count).backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        hidden.backward(seen.grad)  # type: ignore[no-untyped-call]
    return total / count
