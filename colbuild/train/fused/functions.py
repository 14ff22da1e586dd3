"""Norms, gated units, rotary positions and causal attention with fused passes, and their gradients in closed form."""

from __future__ import annotations

from typing import Any

import torch

from colbuild.plan.workload.at_once import QUERIES
from colbuild.train.fused.kernels import kernels


class RmsNorm(torch.autograd.Function):
    """w * x / sqrt(mean(x^2) + eps) over the last dimension."""

    @staticmethod
    def forward(context: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        """X: [..., width], contiguous; weight: [width]."""
        width = x.shape[-1]
        y, inverse = torch.empty_like(x), torch.empty(x.numel() // width, dtype=torch.float32)
        kernels().call("rms_forward", x.dtype, x, weight, y, inverse, x.numel() // width, width, eps)
        context.save_for_backward(x, weight, inverse)
        return y

    @staticmethod
    def backward(context: Any, *outer: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """By x and weight."""
        x, weight, inverse = context.saved_tensors
        gradient, width = outer[0].contiguous(), x.shape[-1]
        by_x, by_weight = torch.empty_like(x), torch.empty(width, dtype=torch.float32)
        rows = x.numel() // width
        kernels().call("rms_backward", x.dtype, gradient, x, weight, inverse, by_x, by_weight, rows, width)
        return by_x, by_weight.to(weight.dtype), None


class Gated(torch.autograd.Function):
    """silu(gate) * up."""

    @staticmethod
    def forward(context: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        """Both contiguous and of one shape."""
        y = torch.empty_like(gate)
        kernels().call("gated_forward", gate.dtype, gate, up, y, gate.numel())
        context.save_for_backward(gate, up)
        return y

    @staticmethod
    def backward(context: Any, *outer: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """By both."""
        gate, up = context.saved_tensors
        by_gate, by_up = torch.empty_like(gate), torch.empty_like(up)
        kernels().call("gated_backward", gate.dtype, outer[0].contiguous(), gate, up, by_gate, by_up, gate.numel())
        return by_gate, by_up


class Rotary(torch.autograd.Function):
    """x cos + rotate_half(x) sin of [rows, tokens, heads, width], as [rows, heads, tokens, width]."""

    @staticmethod
    def forward(context: Any, x: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
        """X: contiguous; cosines and sines: [1 or rows, tokens, width], contiguous and of its type."""
        rows, tokens, heads, width = x.shape
        y = torch.empty(rows, heads, tokens, width, dtype=x.dtype)
        kernels().call("rotate", x.dtype, x, cosines, sines, y, rows, tokens, heads, width, len(cosines))
        context.save_for_backward(cosines, sines)
        return y

    @staticmethod
    def backward(context: Any, *outer: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """By x."""
        cosines, sines = context.saved_tensors
        gradient = outer[0].contiguous()
        rows, heads, tokens, width = gradient.shape
        by_x = torch.empty(rows, tokens, heads, width, dtype=gradient.dtype)
        kernels().call(
            "rotate_back", gradient.dtype, gradient, cosines, sines, by_x, rows, tokens, heads, width, len(cosines)
        )
        return by_x, None, None


class CausalAttention(torch.autograd.Function):
    """Causal attention in blocks of queries; what a query may not see is not computed beyond its block."""

    @staticmethod
    def forward(
        context: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """Query: [rows, heads, tokens, width]; key and value: [rows, kv_heads, tokens, width]. As query, of new memory."""
        rows, heads, tokens, width = query.shape
        kv_heads = key.shape[1]
        group = heads // kv_heads
        folded = query.reshape(rows * kv_heads, group, tokens, width)
        keys, values = (each.reshape(rows * kv_heads, tokens, width) for each in (key, value))
        found, kept = torch.empty_like(folded), []
        for start, stop in _blocks(tokens):
            some = folded[:, :, start:stop].reshape(rows * kv_heads, -1, width)
            likely = torch.bmm(some, keys[:, :stop].transpose(1, 2))
            kernels().call("causal_softmax", query.dtype, likely, len(some) * group, stop - start, stop, start, scale)
            found[:, :, start:stop] = torch.bmm(likely, values[:, :stop]).view(len(some), group, stop - start, width)
            kept.append(likely)
        context.save_for_backward(folded, keys, values, *(kept if any(context.needs_input_grad) else ()))
        context.scale, context.shapes = scale, (query.shape, key.shape)
        return found.view(query.shape)

    @staticmethod
    def backward(context: Any, *outer: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """By query, key and value."""
        folded, keys, values, *kept = context.saved_tensors
        count, group, tokens, width = folded.shape
        gradient = outer[0].reshape(folded.shape)
        by_query, by_key, by_value = torch.empty_like(folded), torch.zeros_like(keys), torch.zeros_like(values)
        for (start, stop), likely in zip(_blocks(tokens), kept, strict=True):
            some, given = (each[:, :, start:stop].reshape(count, -1, width) for each in (folded, gradient))
            by_value[:, :stop] += torch.bmm(likely.transpose(1, 2), given)
            scores = torch.bmm(given, values[:, :stop].transpose(1, 2))
            kernels().call(
                "causal_softmax_backward",
                folded.dtype,
                likely,
                scores,
                count * group,
                stop - start,
                stop,
                start,
                context.scale,
            )
            by_query[:, :, start:stop] = torch.bmm(scores, keys[:, :stop]).view(count, group, stop - start, width)
            by_key[:, :stop] += torch.bmm(scores.transpose(1, 2), some)
        query, key = context.shapes
        return by_query.view(query), by_key.view(key), by_value.view(key), None


def _blocks(tokens: int) -> list[tuple[int, int]]:
    return [(start, min(start + QUERIES, tokens)) for start in range(0, tokens, QUERIES)]


class Cosine(torch.autograd.Function):
    """One minus the cosine between rows, the mean over them, of x [rows, width] and other [rows, at least width]."""

    @staticmethod
    def forward(context: Any, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """X: contiguous; other: its rows. The gradient is made here, while both are in the processor's cache."""
        rows, width = x.shape
        gradient, values = torch.empty_like(x), torch.empty(rows, dtype=torch.float64)
        kernels().call("cosine_rows", x.dtype, x, other, gradient, values, rows, width, other.stride(0))
        context.save_for_backward(gradient)
        return values.mean().float()

    @staticmethod
    def backward(context: Any, *outer: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """By x."""
        (gradient,) = context.saved_tensors
        return gradient * (outer[0].item() / max(1, len(gradient))), None
