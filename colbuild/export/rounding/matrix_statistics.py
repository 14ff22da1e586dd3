"""Statistics of matrices on calibration text: moments of their inputs, and the sensitivity of predictions to outputs.

For a matrix with inputs x and outputs y = W x, an error D of W moves the predictions, to second order, by
KL = 1/2 sum_n E[g_n^2 (D x)_n^2] nats a token, where g is the gradient at y of the loss on tokens drawn from the model itself.
Tokens count as much as their gradients are large: with s the mean of g_n^2 over a token's outputs, that is about
1/2 sum_n E[g_n^2] (D H D^T)_nn with H = E[s x x^T] / E[s]. (K-FAC, arXiv 1503.05671, section 3, takes x and g for independent
and H for E[x x^T]. They are not: where a model has huge activations, at the first token of a text, hardly anything depends on
them.) All is gathered in one pass forward and back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from colbuild.arch import ARCHITECTURES, Structure
from colbuild.progress import Progress, Report
from colbuild.train.loop.micro_batch import recompute
from colbuild.train.losses.forward import final_hidden, head_weight
from colbuild.train.losses.gradient import backward_in_chunks
from colbuild.train.losses.hidden_cosine import blocks_of

_SEED: Final = 20_260_103
_STRIP: Final = 128
"""Rows of moments that are added up at once."""
_CHUNK_TOKENS: Final = 64
"""Tokens whose logits exist at once, of which drawing from them takes several copies."""
_TINY: Final = 1e-30
HEAD: Final = "head"
"""What the head saw goes by this name, whatever it is called."""
SHRINKAGE: Final = 0.3
"""How much of the mean of H's diagonal is added to it. A few thousand tokens tell less of how a thousand inputs go together
than it seems: a rounding that is fitted to them makes up for errors where other text does not have them. See
`tests/benchmarks/rounding.py`."""
_IN_GRAPH: Final[Mapping[str, str]] = {
    **dict.fromkeys(("q_proj", "k_proj", "v_proj"), "stacked"),
    "o_proj": "output",
    "up_proj": "up",
    "down_proj": "down",
}
"""A matrix in a graph -> the part of a block that it comes from where queries, keys and values are one."""


@dataclass(frozen=True, eq=False)
class Seen:
    """Input statistics of one matrix.

    Attributes:
        strips: `moments`, some rows at a time, from the diagonal on: what lies left of it is the same, and all matrices' are
            held at once.
        pull: E[g^2] of each output, float32 [rows].
    """

    strips: tuple[torch.Tensor, ...]
    pull: torch.Tensor

    @property
    def moments(self) -> torch.Tensor:
        """H = E[s x x^T] / E[s], shrunk towards its mean times the identity, float32 [columns, columns]."""
        columns = self.strips[0].shape[1]
        whole = torch.empty(columns, columns)
        for strip in self.strips:
            start, end = columns - strip.shape[1], columns - strip.shape[1] + len(strip)
            whole[start:end, start:] = strip
            whole[end:, start:end] = strip[:, end - start :].T
        return whole


def gather(
    model: PreTrainedModel,
    structure: Structure,
    windows: torch.Tensor,
    report: Report,
    shrinkage: float = SHRINKAGE,
) -> dict[str, Seen]:
    """Returns the input statistics of each matrix in a model's blocks, by module name, and `HEAD`, with equal weights.

    Args:
        model: In float32 or bf16. Its parameters need no gradient afterwards, and its blocks keep no activations.
        structure: What it is made of.
        windows: Token ids [windows, length + 1] to run it over.
        report: Told after each window.
        shrinkage: See `SHRINKAGE`.
    """
    modules = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not model.get_output_embeddings()
    }
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    generator = torch.Generator().manual_seed(_SEED)
    sums = {name: _Sums(*_sides(module)) for name, module in modules.items()}
    head = _Sums(head_weight(model).shape[1], 1)

    def drawn(logits: torch.Tensor, _: slice) -> torch.Tensor:
        # As torch.multinomial, which takes twice as long for so many.
        reached = logits.softmax(dim=1).cumsum(dim=1)
        chances = torch.rand(len(logits), 1, generator=generator) * reached[:, -1:]
        return torch.searchsorted(reached, chances, right=True)[:, 0].clamp_max(logits.shape[1] - 1)

    recompute(blocks_of(model, structure))
    hooks = [model.get_input_embeddings().register_forward_hook(lambda _module, _read, made: made.requires_grad_())]
    hooks += [module.register_full_backward_hook(sums[name].answer) for name, module in modules.items()]
    try:
        for done, window in enumerate(windows):
            report(Progress(done, len(windows), "windows", "calibrating"))
            hidden = final_hidden(model, window[None, :-1])
            head.add(hidden.detach().float(), torch.ones(len(hidden), 1))
            # Inputs are kept when blocks compute them again on the way back, not before.
            reading = [module.register_forward_pre_hook(sums[name].read) for name, module in modules.items()]
            backward_in_chunks(hidden, head_weight(model), drawn, _CHUNK_TOKENS)
            for hook in reading:
                hook.remove()
    finally:
        for hook in hooks:
            hook.remove()
    tokens = windows[:, 1:].numel()
    return {name: sums.pop(name).seen(tokens, shrinkage) for name in modules} | {HEAD: head.seen(tokens, shrinkage)}


def _sides(module: nn.Module) -> tuple[int, int]:
    """How many columns and rows a matrix has, as it multiplies; Conv1D stores it the other way round."""
    parameter = module.get_parameter("weight")
    rows, columns = parameter.T.shape if isinstance(module, Conv1D) else parameter.shape
    return columns, rows


class _Sums:
    """Sums for one matrix."""

    def __init__(self, columns: int, rows: int) -> None:
        self.inputs: torch.Tensor | None = None
        heights = [min(_STRIP, columns - start) for start in range(0, columns, _STRIP)]
        self.strips = tuple(torch.zeros(height, columns - place * _STRIP) for place, height in enumerate(heights))
        self.pull = torch.zeros(rows)

    def read(self, _: nn.Module, arguments: tuple[Any, ...]) -> None:
        """Keeps a matrix's inputs until their gradients are computed."""
        self.inputs = arguments[0].detach().flatten(0, -2)

    def answer(self, _: nn.Module, __: tuple[Any, ...], gradients: tuple[Any, ...]) -> None:
        """Adds a window once its gradients are there."""
        assert self.inputs is not None
        self.add(self.inputs.float(), gradients[0].flatten(0, -2).float().square())
        self.inputs = None

    def add(self, inputs: torch.Tensor, squares: torch.Tensor) -> None:
        """Adds inputs [tokens, columns], and the squares of the gradients at what came out of them [tokens, rows]."""
        weighted = (inputs * squares.mean(dim=1, keepdim=True)).T
        for place, strip in enumerate(self.strips):
            start = place * _STRIP
            strip.addmm_(weighted[start : start + len(strip)], inputs[:, start:])
        self.pull += squares.sum(dim=0)

    def seen(self, tokens: int, shrinkage: float) -> Seen:
        """The means over so many tokens."""
        mean = self.pull.mean().clamp_min(_TINY)
        for strip in self.strips:
            strip /= mean
        return Seen(shrunk(self.strips, shrinkage), self.pull / tokens)


def shrunk(strips: tuple[torch.Tensor, ...], shrinkage: float) -> tuple[torch.Tensor, ...]:
    """Second moments nearer to those of independent inputs that are all as large; their trace stays."""
    mean = torch.cat([strip.diagonal() for strip in strips]).mean()
    nearer = tuple(strip / (1.0 + shrinkage) for strip in strips)
    for strip in nearer:
        strip.diagonal().add_(mean * shrinkage / (1.0 + shrinkage))
    return nearer


def seen_by(weight: str, statistics: Mapping[str, Seen]) -> Seen | None:
    """Returns the input statistics of a graph's matrix; None for a matrix without, such as the head.

    A graph has queries, keys and values apart where a model has them stacked: these read the same, and what depends on each
    is taken to be the mean.
    """
    module = weight.removesuffix(".weight")
    if module in statistics:
        return statistics[module]
    stem, _, kind = module.rpartition(".")
    for name in _called(_IN_GRAPH[kind]) if kind in _IN_GRAPH else ():
        if (found := statistics.get(f"{stem}.{name}")) is not None:
            if kind in ("o_proj", "up_proj", "down_proj"):
                return found
            return Seen(found.strips, found.pull.mean().expand(len(found.pull) // 3))
    return None


@cache
def _called(part: str) -> tuple[str, ...]:
    """What the module of a part may be called in blocks that have queries, keys and values in one."""
    blocks = (table.block for table in ARCHITECTURES.values() if "stacked" in table.block)
    return tuple(block[part].rpartition(".")[2] for block in blocks)


def harm(error: torch.Tensor, moments: torch.Tensor, pull: torch.Tensor) -> float:
    """Returns the change of predictions, in nats a token, for a matrix's error [rows, columns]; to second order.

    Args:
        error: What was added to the matrix.
        moments: As in `Seen`.
        pull: As in `Seen`.
    """
    return float(0.5 * ((error @ moments).mul_(error).sum(dim=1) * pull).sum())
