"""Converts rotary attention's dependence on distance to learned positions.

A rotary head turns query and key by angles that grow with their positions, pair of channels by pair of channels. With z a
query's pair and w a key's, as complex numbers, the pair adds Re(z w* e^(i f (m - n))) to the score of positions m and n. For
fast pairs that hardly depends on what the tokens are, and for slow ones hardly on where they are. So a model with learned
positions gets, in its fast pairs, the score of the mean query and the mean key, c = E[z] E[w]*, one of distances alone:

    |c| cos(f (m - n) + arg c)  =  (cos(f m + arg c), sin(f m + arg c)) . (cos(f n), sin(f n)) |c|

where cosines and sines of positions are what its embedding of positions holds, in a few channels of the residual stream that
nothing else writes to. Its slow pairs keep the queries and keys of the tokens. What both leave out, the fit that follows makes
up for as far as it can (`colbuild.weights.bridge.follow`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch

from colbuild.arch import Role, Structure, tensors
from colbuild.weights.bridge.blocks import Linear, read_block, write_block
from colbuild.weights.files.transformers_config import transformers_config

WITHIN: Final = 512
"""A pair is fast if it turns once within so many tokens."""
LOUDNESS: Final = 2.0
"""How large cosines and sines are beside the embedding's other channels."""
MOST: Final = 0.1
"""The share of the residual stream that positions may take."""

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Rotary:
    """The rotation of a model's queries and keys.

    Attributes:
        base: Frequency of pair k is base^(-2k / width).
        width: Channels of a head that are turned, in two halves.
    """

    base: float
    width: int

    @property
    def fast(self) -> list[float]:
        """Frequencies of the fast pairs, the fastest first."""
        every = (self.base ** (-2.0 * pair / self.width) for pair in range(self.width // 2))
        return [frequency for frequency in every if frequency >= 2.0 * math.pi / WITHIN]


def read_rotary(config: Mapping[str, Any], head_dim: int) -> Rotary | None:
    """A model's; None if it has none, or not the same in all layers and at all lengths."""
    # As transformers reads it, with the defaults of each architecture. It fills nested mappings in place.
    found = getattr(transformers_config(config), "rope_parameters", None) or {}
    if "rope_theta" not in found or found.get("rope_type", "default") != "default":
        return None
    return Rotary(float(found["rope_theta"]), int(head_dim * found.get("partial_rotary_factor", 1.0)) // 2 * 2)


def write_positions(weights: Weights, structure: Structure, rotary: Rotary, reads: Sequence[torch.Tensor]) -> int:
    """Gives a model with learned positions a sense of distance, in place.

    Args:
        weights: The model's, whose queries and keys are those of rotary attention, in as many channels a head.
        structure: Its structure.
        rotary: How these were turned.
        reads: For each layer the residual stream [tokens, hidden] that its attention reads in the model that it follows.

    Returns:
        The first of the channels that hold positions, to the last, which nothing else may write to. All channels where there is
        no room.
    """
    hidden = structure.shape.hidden
    fast = rotary.fast[: int(hidden * MOST) // 2]
    first = hidden - 2 * len(fast)
    if not fast:
        return hidden
    names = {
        tensor.role: tensor.name for tensor in tensors(structure) if tensor.layer is None and len(tensor.axes) == 2
    }
    words, table = weights[names[Role.EMBEDDING]], weights[names[Role.POSITION]]
    size = LOUDNESS * float(words[:, :first].square().mean().sqrt())
    _fill(table, fast, first, size)
    words[:, first:] = 0.0
    for layer, read in enumerate(reads):
        block = read_block(structure, weights, layer)
        if block.attention_norm is None or block.ffn_norm is None:
            raise ValueError(
                f"{structure.architecture.name} has no norms before its branches to make room for positions"
            )
        length = read.square().mean(dim=1, keepdim=True).sqrt()
        gain = float(length.median()) / size
        mean = (read / length).mean(dim=0) * block.attention_norm.weight
        query, key = _distances(block.query, block.key, mean, fast, rotary.width // 2, structure)
        written = replace(
            block,
            attention_norm=_with_gain(block.attention_norm, first, gain),
            ffn_norm=_with_gain(block.ffn_norm, first, 0.0),
            query=query,
            key=key,
            value=Linear(_without(block.value.weight, first), block.value.bias),
        )
        for name, matrix in write_block(structure, written, layer).items():
            weights[name].copy_(matrix)
    for tensor in tensors(structure):
        if tensor.role is Role.NORM and tensor.layer is None:
            weights[tensor.name][first:] = 0.0
    return first


def _fill(table: torch.Tensor, fast: Sequence[float], first: int, size: float) -> None:
    """Cosine and sine of each frequency at each position; nothing else."""
    places = torch.arange(len(table), dtype=torch.float64)
    table.zero_()
    for index, frequency in enumerate(fast):
        table[:, first + 2 * index] = size * torch.cos(frequency * places).float()
        table[:, first + 2 * index + 1] = size * torch.sin(frequency * places).float()


def _distances(
    query: Linear, key: Linear, mean: torch.Tensor, fast: Sequence[float], half: int, structure: Structure
) -> tuple[Linear, Linear]:
    """Queries and keys whose fast pairs read positions: the score of the means, as a function of distance."""
    heads, width, hidden = structure.shape.heads, structure.shape.head_dim, structure.shape.hidden
    first = hidden - 2 * len(fast)
    parts = []
    for part in (query, key):
        bias = part.bias if part.bias is not None else torch.zeros(heads * width)
        usual = (part.weight @ mean + bias).reshape(heads, width)
        parts.append(
            (_without(part.weight, first).reshape(heads, width, hidden), bias.reshape(heads, width).clone(), usual)
        )
    (asks, asked, mean_query), (answers, answered, mean_key) = parts
    for pair in range(len(fast)):
        one, other = pair, pair + half
        score = torch.complex(mean_query[:, one], mean_query[:, other])
        score = score * torch.complex(mean_key[:, one], -mean_key[:, other])
        root, angle = score.abs().sqrt(), score.angle()
        for weight, bias in ((asks, asked), (answers, answered)):
            weight[:, [one, other]] = 0.0
            bias[:, [one, other]] = 0.0
        cosine, sine = first + 2 * pair, first + 2 * pair + 1
        asks[:, one, cosine], asks[:, one, sine] = root * angle.cos(), -root * angle.sin()
        asks[:, other, cosine], asks[:, other, sine] = root * angle.sin(), root * angle.cos()
        answers[:, one, cosine], answers[:, other, sine] = root, root
    return (
        Linear(asks.reshape(-1, hidden), None if query.bias is None else asked.flatten()),
        Linear(answers.reshape(-1, hidden), None if key.bias is None else answered.flatten()),
    )


def _without(weight: torch.Tensor, first: int) -> torch.Tensor:
    """A copy that does not read the channels of positions."""
    found = weight.clone()
    found[:, first:] = 0.0
    return found


def _with_gain(norm: Linear, first: int, gain: float) -> Linear:
    weight = norm.weight.clone()
    weight[first:] = gain
    return replace(norm, weight=weight)
