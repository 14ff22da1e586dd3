"""The embedding and the head in 4 bits, if a profile asks for it."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Final

import onnx_ir
import torch

from colbuild.export.graph.graph_nodes import linears, lookups
from colbuild.export.rounding.block_rounding import Blocks, Inputs, inputs_of, round_blocks, stacked
from colbuild.export.rounding.matrix_statistics import Seen

_ROWS: Final = 8192
"""Rows that are rounded at once: a vocabulary has many, and each is fitted for itself."""


def embeddings(graph: onnx_ir.Graph) -> frozenset[str]:
    """Names of the tables whose rows are tokens, not positions."""
    return frozenset(use.weight for use in lookups(graph) if use.source.name == "input_ids")


def round_tables(
    graph: onnx_ir.Graph, weights: Mapping[str, torch.Tensor], names: Set[str], block: int, head: Seen
) -> dict[str, Blocks]:
    """The embedding and the head in 4 bits.

    What the head multiplies is known, and its rows are fitted to that, whatever tokens the text has. So are those of an
    embedding that is the head too; in one of its own each weight goes to the nearest step.

    Args:
        graph: The empty graph.
        weights: The tensors by the names of the graph.
        names: Of the embedding and the head, which may be one.
        block: Columns that share a scale.
        head: What the head saw.
    """
    multiplied, inputs = {use.weight for use in linears(graph)}, inputs_of(head.moments)
    return {name: _by_rows(weights[name], block, inputs if name in multiplied else None) for name in sorted(names)}


def _by_rows(weight: torch.Tensor, block: int, inputs: Inputs | None) -> Blocks:
    return stacked([round_blocks(rows, 4, block, inputs) for rows in torch.split(weight, _ROWS)])
