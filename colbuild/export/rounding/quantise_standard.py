"""Rounded weights with ONNX's own operators, dequantised by blocks along a matrix's inner axis.

Runtimes with kernels for such products recognise the pair DequantizeLinear and MatMul and never make the float matrix; others
make it each time, which is slow and right.
"""

from __future__ import annotations

from collections.abc import Sequence

import ml_dtypes
import numpy
import onnx_ir
import torch

from colbuild.export.graph.graph_nodes import Array, Use, add_initializer, lookups
from colbuild.export.rounding.block_rounding import Blocks


class StandardForm:
    """Rounded weights as DequantizeLinear reads them: [columns, rows] for products, [rows, columns] for what is looked up."""

    def __init__(self, graph: onnx_ir.Graph) -> None:
        self.graph = graph
        self.looked_up = {use.weight for use in lookups(graph)}
        self.tables: dict[str, tuple[onnx_ir.Value, onnx_ir.Value]] = {}

    def together(self, uses: Sequence[Use]) -> list[list[Use]]:
        """Returns each product on its own."""
        return [[use] for use in uses]

    def multiply(self, every: Sequence[tuple[Use, Blocks]]) -> list[onnx_ir.Node]:
        """Nodes in the place of a MatMul."""
        [(use, weight)] = every
        if use.weight in self.looked_up:
            data, scales = self._table(use.weight, weight)
            whole = onnx_ir.node("DequantizeLinear", [data, scales], {"axis": 1, "block_size": weight.block})
            turned = onnx_ir.node("Transpose", [whole.outputs[0]], {"perm": [1, 0]})
            return [whole, turned, onnx_ir.node("MatMul", [use.source, turned.outputs[0]])]
        parts = [add_initializer(self.graph, f"{use.weight}.codes", _integers(weight).T)]
        parts.append(add_initializer(self.graph, f"{use.weight}.scales", weight.scales.T.contiguous().numpy()))
        if weight.zeros is not None:
            zeros = weight.zeros.T.contiguous().numpy().astype(ml_dtypes.uint4)
            parts.append(add_initializer(self.graph, f"{use.weight}.zeros", zeros))
        whole = onnx_ir.node("DequantizeLinear", parts, {"axis": 0, "block_size": weight.block})
        return [whole, onnx_ir.node("MatMul", [use.source, whole.outputs[0]])]

    def look_up(self, use: Use, weight: Blocks) -> list[onnx_ir.Node]:
        """Nodes in the place of a Gather."""
        data, scales = self._table(use.weight, weight)
        rows, steps = (onnx_ir.node("Gather", [part, use.source], {"axis": 0}) for part in (data, scales))
        inputs = [rows.outputs[0], steps.outputs[0]]
        return [rows, steps, onnx_ir.node("DequantizeLinear", inputs, {"axis": 2, "block_size": weight.block})]

    def _table(self, name: str, weight: Blocks) -> tuple[onnx_ir.Value, onnx_ir.Value]:
        if name not in self.tables:
            data = add_initializer(self.graph, f"{name}.codes", _integers(weight))
            self.tables[name] = (data, add_initializer(self.graph, f"{name}.scales", weight.scales.numpy()))
        return self.tables[name]


def _integers(weight: Blocks) -> Array:
    """Codes [rows, columns] as ONNX's types have them: int8 around 0, or uint4."""
    codes = weight.codes.flatten(1)[:, : weight.columns]
    if weight.bits == 8:
        return (codes.to(torch.int16) - weight.middle).to(torch.int8).contiguous().numpy()
    return numpy.ascontiguousarray(codes.numpy().astype(ml_dtypes.uint4))
