"""How each matrix of a package is stored: how many bits, and rounded to what; by what was measured on calibration text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import torch

from colbuild.errors import BuildError
from colbuild.export.decoder import EmptyDecoder
from colbuild.export.graph import linears, lookups
from colbuild.export.rounding import Blocks, round_blocks
from colbuild.export.statistics import Seen, harm, seen_by
from colbuild.plan.package_size import OLDER_LAYER, int4_bytes, int8_bytes
from colbuild.progress import Progress, Report
from colbuild.spec.device import Device
from colbuild.units import format_bytes

KINDS: Final[Mapping[str, str]] = {
    "query": "q_proj",
    "key": "k_proj",
    "value": "v_proj",
    "output": "o_proj",
    "gate": "gate_proj",
    "up": "up_proj",
    "down": "down_proj",
}
_LAYER: Final = re.compile(r"\.(\d+)\.")


@dataclass
class Fitted:
    """The rounded matrices of a package.

    Attributes:
        eight: Names of those that keep 8 bits.
        fixed: Of these, embedding and head, which always do.
        rounded: Those that are known already.
    """

    eight: frozenset[str]
    fixed: frozenset[str]
    rounded: dict[str, Blocks] = field(default_factory=dict)


def fit(
    decoder: EmptyDecoder,
    profile: Device,
    statistics: Mapping[str, Seen],
    room: int | None,
    report: Report,
) -> Fitted:
    """Rounds the matrices of a graph to 4 bits where a profile asks for that, and decides which keep 8.

    Args:
        decoder: The empty graph, and what fills it.
        profile: int4 or int4-mixed.
        statistics: What the model's matrices saw.
        room: Bytes that all matrices and tables may take together, where that decides which keep 8 bits; else None.
        report: Told after each matrix.

    Raises:
        BuildError: There is no room even with 4 bits everywhere.
    """
    weights, graph = decoder.weights, decoder.model.graph
    tables = {use.weight for use in lookups(graph)}
    names = [use.weight for use in linears(graph)]
    known = {name: found for name in names if (found := seen_by(name, statistics)) is not None}
    # The head is the embedding, or as large, and no text says how often a token that it lacks would have been right.
    fixed = tables | (set(names) - known.keys())
    matrices = [name for name in names if name not in fixed]
    layers = 1 + max(_layer(name) for name in matrices)
    chosen = {name for name in matrices if _is_kept(name, profile, layers)}
    rounded: dict[str, Blocks] = {}
    gains: dict[str, float] = {}
    for done, name in enumerate(matrices):
        report(Progress(done, len(matrices), "matrices", "rounding"))
        if name in chosen:
            continue
        seen, weight = known[name], weights[name].float()
        rounded[name] = round_blocks(weight, 4, profile.block, seen.moments)
        if room is not None:
            finer = round_blocks(weight, 8, profile.block)
            gains[name] = harm(weight, rounded[name].values(), seen) - harm(weight, finer.values(), seen)
    if room is not None:
        sizes = {
            name: (stored_bytes(weights[name], 8, profile), stored_bytes(weights[name], 4, profile))
            for name in matrices
        }
        left = (
            room
            - sum(stored_bytes(weights[name], 8, profile) for name in fixed)
            - sum(four for _, four in sizes.values())
        )
        if left < 0:
            raise BuildError(
                f"the package would have {format_bytes(-left)} more than its limit max_package even with 4 bits everywhere",
                hint=f"the nearest size that would fit is max_package: {_rounded_up((profile.limits.max_package or 0) - left)}",
            )
        chosen |= spend(left, {name: eight - four for name, (eight, four) in sizes.items()}, gains)
    return Fitted(
        frozenset(chosen | fixed),
        frozenset(fixed),
        {name: blocks for name, blocks in rounded.items() if name not in chosen},
    )


_BESIDE: Final = 24_576
"""Bytes of the manifest and of the graph without its weights; each layer adds some, see `colbuild.plan.package_size`."""
_BESIDE_LAYER: Final = 10_240


def room_for_matrices(profile: Device, decoder: EmptyDecoder, companions: int) -> int | None:
    """Bytes that matrices and tables may take, where that decides which keep 8 bits; else None.

    Everything else is counted, the graph bounded.

    Args:
        profile: What says how large the package may be.
        decoder: The empty graph.
        companions: Bytes of the files beside the graph.
    """
    if profile.precision != "int4-mixed":
        return None
    most = profile.limits.max_package or 0
    known = sum(value.const_value.nbytes for value in decoder.model.graph.initializers.values() if value.const_value)
    vectors = sum(4 * tensor.numel() for tensor in decoder.weights.values() if tensor.ndim == 1)
    # Keys and values of each layer, and the logits.
    layers = (len(decoder.model.graph.outputs) - 1) // 2
    each = _BESIDE_LAYER if profile.opset is None else _BESIDE_LAYER + OLDER_LAYER
    return most - known - vectors - _BESIDE - each * layers - companions


def spend(left: int, costs: Mapping[str, int], gains: Mapping[str, float]) -> set[str]:
    """Which matrices get 8 bits for at most `left` bytes: those that gain most for each byte."""
    chosen = set()
    for name in sorted(gains, key=lambda name: (-gains[name] / costs[name], name)):
        if gains[name] > 0.0 and costs[name] <= left:
            chosen.add(name)
            left -= costs[name]
    return chosen


def stored_bytes(weight: torch.Tensor, bits: int, profile: Device) -> int:
    """Bytes of a matrix [rows, columns]: codes, scales, and zeros where there are 4 bits."""
    bytes_of = int8_bytes if bits == 8 else int4_bytes
    return bytes_of(tuple(weight.shape), profile.block)


def _is_kept(name: str, profile: Device, layers: int) -> bool:
    layer = _layer(name)
    kinds = {KINDS[kind] for kind in profile.keep_8bit if kind in KINDS}
    if ("first" in profile.keep_8bit and layer == 0) or ("last" in profile.keep_8bit and layer == layers - 1):
        return True
    return name.removesuffix(".weight").rpartition(".")[2] in kinds


def _layer(name: str) -> int:
    found = _LAYER.search(name)
    return int(found[1]) if found else 0


def _rounded_up(size: int) -> str:
    return f"{-(-size // 10_000) / 100:.2f}MB".replace(".00MB", "MB")
