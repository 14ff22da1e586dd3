"""Computes a loss from hidden states in chunks of tokens, so that whole logits never exist, and its gradient with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from colbuild.plan.workload.at_once import PRODUCT_BYTES
from colbuild.train.batch import IGNORED
from colbuild.train.losses.logits_buffer import Room, add

if TYPE_CHECKING:
    from colbuild.train.losses.losses import LossWeights

Chunk = Callable[[torch.Tensor, slice], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]
"""(logits of some tokens, where these stand among the product's) -> (divergence and cross-entropy summed, gradient of the
weighted loss by the logits). May overwrite the logits."""

Turn = Callable[[torch.Tensor, int], torch.Tensor]
"""(logits of a product's tokens, tokens in all) -> [divergence, cross-entropy], summed. The gradient of the weighted mean takes
the logits' place."""

Begin = Callable[[torch.Tensor], Turn]
"""The rows of the tokens of one product -> what turns their logits into the gradient."""


class MadeInForward(torch.autograd.Function):
    """A loss of (hidden, head, ...) whose gradient by the logits is made in the forward pass, while a chunk is at hand."""

    @staticmethod
    def backward(context: Any, *outer: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """The gradients that `in_chunks` kept, times the loss's own."""
        grad_hidden, grad_head = context.saved_tensors
        # A plain number: as a bf16 tensor, a third of a batch would weigh 0.2% too much.
        scale = outer[0].item()
        # A whole batch at once weighs 1: a pass over the head's gradient less.
        if scale == 1.0:
            return grad_hidden, grad_head, None, None, None, None
        return grad_hidden * scale, None if grad_head is None else grad_head * scale, None, None, None, None


def in_chunks(
    context: Any,
    hidden: torch.Tensor,
    head: torch.Tensor,
    targets: torch.Tensor,
    weights: LossWeights,
    begin: Begin,
    room: Room,
    more: torch.Tensor | float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The forward pass of a `MadeInForward`: (loss, divergence, cross-entropy), each the mean over the tokens asked for.

    Products take many tokens at once, as a head is packed anew for each of them. The gradient takes the logits' place.

    Args:
        context: Keeps the gradients by `hidden` and `head`.
        hidden: The student's final hidden states [tokens, hidden].
        head: Its head [vocabulary, hidden].
        targets: The tokens that follow, [tokens]; those that are `IGNORED` are left out.
        weights: How the parts are mixed.
        begin: The loss of some tokens.
        room: Memory for logits.
        more: A divergence beyond that of single tokens, summed.
    """
    asked = torch.nonzero(targets != IGNORED).squeeze(1)
    many = max(1, PRODUCT_BYTES // hidden.element_size())
    count = max(1, asked.shape[0])
    accurate = torch.promote_types(hidden.dtype, torch.float32)
    grad_hidden = torch.zeros_like(hidden)
    grad_head: torch.Tensor | None = None
    sums = []
    for part in torch.split(asked, many) if len(asked) else ():
        seen, turn = hidden[part], begin(part)
        logits = room.product("student", seen, head.T)
        sums.append(turn(logits, count))
        grad_hidden[part] = logits @ head
        if not context.needs_input_grad[1]:
            continue
        if len(asked) <= many:
            grad_head = logits.T @ seen
        else:
            grad_head = torch.zeros_like(head, dtype=accurate) if grad_head is None else grad_head
            add(grad_head, room.product("head", logits.T, seen))
    if context.needs_input_grad[1]:
        grad_head = torch.zeros_like(head) if grad_head is None else grad_head.to(head.dtype)
    context.save_for_backward(grad_hidden, grad_head)
    # At the end, as a GPU is waited for here; on the CPU, as MPS has no float64.
    summed = torch.stack(sums).cpu().double().sum(dim=0) if sums else torch.zeros(2, dtype=torch.float64)
    divergence, entropy = summed.div(count).unbind()
    divergence = divergence + more / count
    loss = (weights.kd * divergence + weights.ce * entropy).to(hidden.device, accurate)
    context.mark_non_differentiable(divergence, entropy)
    return loss, divergence, entropy


def in_parts(chunk: Chunk, at_once: int, accurate: torch.dtype, room: Room) -> Turn:
    """Turns logits into the gradient, few tokens at a time: what is passed over again is still in the processor's cache."""

    def turn(logits: torch.Tensor, count: int) -> torch.Tensor:
        sums = []
        for start in range(0, len(logits), at_once):
            some = logits[start : start + at_once]
            apart, ce, gradient = chunk(room.cast("wide", some, accurate), slice(start, start + at_once))
            sums.append(torch.stack([apart, ce]))
            some.copy_(gradient.div_(count))
        return torch.stack(sums).double().sum(dim=0) if logits.device.type == "cpu" else torch.stack(sums).sum(dim=0)

    return turn
