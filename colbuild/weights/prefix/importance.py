"""The importance of each FFN channel, head, residual channel and layer, from activations on calibration tokens.

- FFN channels and heads: energy of what they feed into their output projection times that projection's column norm, as in
  Minitron (arXiv 2407.14679, section 2.1) and Wanda (arXiv 2306.11695).
- Residual channels: their share of the residual stream's energy, averaged over every norm's input.
- Layers: Block Influence, one minus the cosine between a block's input and output (ShortGPT, arXiv 2403.03853, section 2.3).
  `order` ranks them by `colbuild.ops.shared.layer_ranking` instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import nn
from transformers import PreTrainedModel

from colbuild.arch import Role, Structure, norm_sites, stream_readers, tensors, wide_norms
from colbuild.progress import Progress, Report


@dataclass(frozen=True)
class Importance:
    """Scores; larger matters more.

    Attributes:
        ffn: [layers, ffn].
        heads: [layers, heads].
        hidden: [hidden].
        layers: [layers].
        residual: [norm sites, hidden], mean square of each residual channel at each norm's input.
        groups: [wide norms, kv_heads], mean square of each group of heads at the input of each norm over all heads; None where
            a model has no such norms.
    """

    ffn: torch.Tensor
    heads: torch.Tensor
    hidden: torch.Tensor
    layers: torch.Tensor
    residual: torch.Tensor
    groups: torch.Tensor | None = None


_OUTPUTS: Final = (Role.FFN_OUT, Role.ATTENTION_OUT)


@dataclass
class _Sums:
    """Running sums over tokens, by module name."""

    energy: dict[str, torch.Tensor] = field(default_factory=dict)
    distance: dict[str, float] = field(default_factory=dict)
    tokens: int = 0


def measure_importance(
    model: PreTrainedModel, structure: Structure, windows: torch.Tensor, report: Report
) -> Importance:
    """Scores every axis of a model in one pass.

    Args:
        model: The model; bf16 is exact enough for a ranking.
        structure: Its structure.
        windows: Calibration tokens [windows, length].
        report: Told after each window.
    """
    sums = _Sums()
    projections = [t for t in tensors(structure) if t.role in _OUTPUTS and len(t.lengths) == 2]
    sites = [*norm_sites(structure), *stream_readers(structure), *wide_norms(structure)]
    watched = dict.fromkeys([*(tensor.name for tensor in projections), *sites])
    modules = dict(model.named_modules())
    hooks = [modules[name.rsplit(".", 1)[0]].register_forward_pre_hook(_add_energy(sums, name)) for name in watched]
    blocks = [_block(modules, layer, projections[0].name) for layer in range(structure.shape.layers)]
    hooks += [block.register_forward_hook(_add_distance(sums, str(layer))) for layer, block in enumerate(blocks)]
    try:
        with torch.inference_mode():
            for index, window in enumerate(windows):
                model(input_ids=window[None], use_cache=False, logits_to_keep=1)
                sums.tokens += window.numel()
                report(Progress((index + 1) * window.numel(), windows.numel(), "tokens", "measuring importance"))
    finally:
        for hook in hooks:
            hook.remove()
    return _scores(model, structure, sums)


def _scores(model: PreTrainedModel, structure: Structure, sums: _Sums) -> Importance:
    shape = structure.shape
    weights = dict(model.named_parameters())
    ffn, heads = [], []
    for tensor in tensors(structure):
        if tensor.name not in sums.energy or tensor.role not in _OUTPUTS:
            continue
        energy = sums.energy[tensor.name] / sums.tokens
        # An output projection writes into the hidden axis; the other one is what it reads.
        columns = weights[tensor.name].detach().double().square().sum(dim=tensor.axes.index("hidden"))
        if tensor.role is Role.FFN_OUT:
            ffn.append(energy * columns)
        else:
            heads.append((energy * columns).reshape(shape.heads, shape.head_dim).sum(dim=1))
    seen, stream = (
        torch.stack([sums.energy[name] / sums.tokens for name in names])
        # What a branch's own norm reads is not the stream.
        for names in (norm_sites(structure), stream_readers(structure))
    )
    wide = [sums.energy[name].reshape(shape.kv_heads, -1).mean(dim=1) for name in wide_norms(structure)]
    return Importance(
        ffn=torch.stack(ffn),
        heads=torch.stack(heads),
        hidden=(stream / stream.sum(dim=1, keepdim=True)).mean(dim=0),
        layers=torch.tensor([sums.distance[str(layer)] / sums.tokens for layer in range(shape.layers)]),
        residual=seen.float(),
        groups=(torch.stack(wide) / sums.tokens).float() if wide else None,
    )


def _add_energy(sums: _Sums, name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
    def hook(_: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        # Summed in double: many tokens, and channels whose energies differ by six orders of magnitude.
        total = arguments[0].float().square().flatten(0, -2).sum(dim=0, dtype=torch.float64)
        sums.energy[name] = sums.energy[name] + total if name in sums.energy else total

    return hook


def _add_distance(sums: _Sums, name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], None]:
    def hook(_: nn.Module, arguments: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        after = output[0] if isinstance(output, tuple) else output
        cosine = nn.functional.cosine_similarity(arguments[0].float(), after.float(), dim=-1)
        sums.distance[name] = sums.distance.get(name, 0.0) + float((1.0 - cosine).double().sum())

    return hook


def _block(modules: dict[str, nn.Module], layer: int, example: str) -> nn.Module:
    """The transformer block `layer`, found through the name of a tensor inside block 0 ("model.layers.0.…")."""
    stem = example.split(".0.")[0]
    return modules[f"{stem}.{layer}"]
