"""Gives the norms, gated units and rotary positions of a transformers model their fused passes.

What a module computes is found out by trying, not by its name: a part is replaced if it computes what the fused one does on
random numbers. So every architecture gets the passes that are its own, and no other.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from types import FunctionType, MethodType
from typing import Any, Final

import torch
from torch import nn

from colbuild.train.fused.functions import Gated, RmsNorm, Rotary
from colbuild.train.fused.kernels import fits, is_fusing

_ROTARY: Final = "apply_rotary_pos_emb"
_WIDTH: Final = 16

Tensors = torch.Tensor | tuple[torch.Tensor, ...]
Rotate = Callable[..., tuple[torch.Tensor, torch.Tensor]]


def fuse(model: nn.Module) -> int:
    """Replaces what a model's parts compute with by fused passes, wherever these compute the same; returns how many."""
    if not is_fusing():
        return 0
    count = 0
    known: dict[object, bool] = {}
    for module in model.modules():
        for kind, found, trial in _parts(module):
            if kind not in known:
                with torch.no_grad():
                    known[kind] = trial()
            if known[kind]:
                module.forward = found
                count += 1
    return count


Part = tuple[object, Callable[..., Any], Callable[[], bool]]
"""(what all parts alike have in common, the fused forward pass, whether it computes the same)."""


def _parts(module: nn.Module) -> Iterator[Part]:
    weight = getattr(module, "weight", None)
    if hasattr(module, "variance_epsilon") and isinstance(weight, torch.Tensor) and weight.dim() == 1:
        yield type(module), _norm(module, module.forward), lambda: _norm_is_plain(module)
    if all(hasattr(module, name) for name in ("gate_proj", "up_proj", "down_proj", "act_fn")):
        kind = (type(module), type(module.act_fn))
        yield kind, _gated(module, module.forward), lambda: _gated_is_plain(module)
    forward = inspect.unwrap(type(module).forward)
    rotate = getattr(forward, "__globals__", {}).get(_ROTARY)
    if rotate is not None and _ROTARY in forward.__code__.co_names:
        yield rotate, _rotating(module, forward, rotate), lambda: _rotary_is_plain(rotate)


def _norm(module: nn.Module, plain: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def forward(hidden: torch.Tensor) -> torch.Tensor:
        weight: torch.Tensor = module.weight  # type: ignore[assignment]
        if not fits(hidden, weight) or not weight.is_contiguous():
            return plain(hidden)
        found: torch.Tensor = RmsNorm.apply(hidden.contiguous(), weight, _eps(module))  # type: ignore[no-untyped-call]
        return found

    return forward


def _eps(module: nn.Module) -> float:
    eps: Any = module.variance_epsilon
    return float(eps)


def _gated(module: nn.Module, plain: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def forward(hidden: torch.Tensor) -> torch.Tensor:
        if not fits(hidden):
            return plain(hidden)
        gate, up = module.gate_proj(hidden), module.up_proj(hidden)  # type: ignore[operator]
        found: torch.Tensor = module.down_proj(Gated.apply(gate.contiguous(), up.contiguous()))  # type: ignore[operator, no-untyped-call]
        return found

    return forward


def _rotating(module: nn.Module, forward: FunctionType, plain: Rotate) -> Callable[..., Any]:
    """A module's forward pass as it is, but for the function that it rotates with."""
    others = {**forward.__globals__, _ROTARY: _rotary(plain)}
    copied = FunctionType(forward.__code__, others, forward.__name__, forward.__defaults__, forward.__closure__)
    copied.__kwdefaults__ = forward.__kwdefaults__
    return MethodType(copied, module)


def _rotary(plain: Rotate) -> Rotate:
    def rotate(
        query: torch.Tensor, key: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, *more: Any, **named: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if more or named or not fits(query, key, cos, sin) or cos.shape[-1] != query.shape[-1] or cos.dim() != 3:
            return plain(query, key, cos, sin, *more, **named)
        cos, sin = cos.contiguous(), sin.contiguous()
        one, other = (
            Rotary.apply(each.transpose(1, 2).contiguous(), cos, sin)  # type: ignore[no-untyped-call]
            for each in (query, key)
        )
        return one, other

    return rotate


def _norm_is_plain(module: nn.Module) -> bool:
    hidden, weight = _random(3, len(module.weight)), module.weight.detach().float()  # type: ignore[arg-type, operator]
    # In the module's own type, as its forward pass multiplies by its own weight.
    hidden = hidden.to(module.weight.dtype)  # type: ignore[arg-type]
    expected = hidden.float() * torch.rsqrt(hidden.float().square().mean(dim=-1, keepdim=True) + _eps(module))
    return _close(module.forward(hidden), expected * weight)


def _gated_is_plain(module: nn.Module) -> bool:
    hidden = _random(3, 64).to(torch.float32)
    return _close(module.act_fn(hidden), nn.functional.silu(hidden)) and _is_product(module)  # type: ignore[operator]


def _is_product(module: nn.Module) -> bool:
    """Returns whether a gated unit is down(act(gate) * up), tried with projections of its own."""
    weight: torch.Tensor = module.gate_proj.weight  # type: ignore[union-attr, assignment]
    hidden = _random(2, weight.shape[1]).to(weight.dtype)
    gate, up = module.gate_proj(hidden), module.up_proj(hidden)  # type: ignore[operator]
    expected = module.down_proj(module.act_fn(gate) * up)  # type: ignore[operator]
    return _close(module.forward(hidden), expected)


def _rotary_is_plain(rotate: Rotate) -> bool:
    query, key = _random(1, 2, 3, _WIDTH), _random(1, 1, 3, _WIDTH)
    cos, sin = _random(1, 3, _WIDTH), _random(1, 3, _WIDTH)

    def turned(x: torch.Tensor) -> torch.Tensor:
        one, two = x.chunk(2, dim=-1)
        return x * cos[:, None] + torch.cat([-two, one], dim=-1) * sin[:, None]

    found = rotate(query, key, cos, sin)
    return all(_close(ours, turned(x)) for ours, x in zip(found, (query, key), strict=True))


def _random(*lengths: int) -> torch.Tensor:
    return torch.randn(*lengths, generator=torch.Generator().manual_seed(0))


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    # A bf16 number has 8 bits.
    return torch.allclose(one.detach().float(), other.detach().float(), rtol=2e-2, atol=1e-2)
