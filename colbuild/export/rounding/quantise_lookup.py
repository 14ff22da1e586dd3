"""Looks up and scales rows of a rounded table with plain operators.

onnxruntime's GatherBlockQuantized does the same in one node, but not in WebAssembly (1.31). Of 4 bits two codes are in a byte::

    ids ──> Gather ──> Cast ──┬─> floor(byte / 16) ─────┬─> low, high, low, high, … ──> (codes - zeros) * scales
               │              └─> byte - 16 * that ─────┘                                     │         │
             bytes                                            zeros, unpacked like the codes ─┘         │
                                                              scales ───────────────────────────────────┘
"""

from __future__ import annotations

import numpy
import onnx_ir

from colbuild.export.graph.graph_nodes import Array, Use, add_initializer
from colbuild.export.rounding.block_rounding import Blocks


def look_up(
    graph: onnx_ir.Graph,
    use: Use,
    weight: Blocks,
    stored: tuple[onnx_ir.Value, onnx_ir.Value, onnx_ir.Value | None],
) -> list[onnx_ir.Node]:
    """Nodes in the place of a Gather; the last one has the rows.

    Args:
        graph: Where they will be.
        use: The Gather.
        weight: The rounded table.
        stored: Its bytes [rows, blocks, bytes], scales [rows, blocks], and in 4 bits zeros, packed like the codes.
    """
    data, scales, zeros = stored
    made, blocks = _Nodes(graph, use), weight.scales.shape[1]
    steps = made.wide(made.rows(scales))
    if zeros is None:
        codes, middle = made.floats(made.rows(data)), made.constant("middle", numpy.array(weight.middle, numpy.float32))
    else:
        codes = made.reshaped("codes", made.halves(made.rows(data)), [blocks, weight.block])
        each = made.reshaped("zeros", made.halves(made.rows(zeros)), [blocks + blocks % 2])
        middle = made.wide(made.cut("zeros", each, blocks + blocks % 2, blocks))
    scaled = made.node("Mul", made.node("Sub", codes, middle), steps)
    whole = made.reshaped("row", scaled, [blocks * weight.block])
    made.cut("row", whole, blocks * weight.block, weight.columns)
    return made.nodes


class _Nodes:
    """Nodes one after the other, for indices [batch, new]."""

    def __init__(self, graph: onnx_ir.Graph, use: Use) -> None:
        self.graph, self.use = graph, use
        self.nodes: list[onnx_ir.Node] = []

    def node(self, kind: str, *inputs: onnx_ir.Value, **attributes: int) -> onnx_ir.Value:
        self.nodes.append(onnx_ir.node(kind, inputs, attributes))
        return self.nodes[-1].outputs[0]

    def constant(self, name: str, array: Array) -> onnx_ir.Value:
        name = f"{self.use.weight}.{name}"
        return self.graph.initializers.get(name) or add_initializer(self.graph, name, array)

    def rows(self, table: onnx_ir.Value) -> onnx_ir.Value:
        return self.node("Gather", table, self.use.source, axis=0)

    def floats(self, value: onnx_ir.Value) -> onnx_ir.Value:
        return self.node("Cast", value, to=onnx_ir.DataType.FLOAT)

    def wide(self, value: onnx_ir.Value) -> onnx_ir.Value:
        """With an axis of 1 behind the others."""
        return self.node("Unsqueeze", value, self.constant("last_axis", numpy.array([-1])))

    def halves(self, value: onnx_ir.Value) -> onnx_ir.Value:
        """Bytes [..., n] as numbers [..., n, 2], the lower four bits first."""
        whole, sixteen = self.floats(value), self.constant("sixteen", numpy.array(16, numpy.float32))
        high = self.node("Floor", self.node("Div", whole, sixteen))
        low = self.node("Sub", whole, self.node("Mul", high, sixteen))
        return self.node("Concat", self.wide(low), self.wide(high), axis=-1)

    def reshaped(self, name: str, value: onnx_ir.Value, lengths: list[int]) -> onnx_ir.Value:
        """With other lengths behind batch and new."""
        return self.node("Reshape", value, self.constant(f"{name}_shape", numpy.array([0, 0, *lengths])))

    def cut(self, name: str, value: onnx_ir.Value, length: int, wanted: int) -> onnx_ir.Value:
        """[batch, new, length] without what fills it up."""
        if wanted == length:
            return value
        bounds = (("first", 0), (f"{name}_columns", wanted), ("axis", 2))
        return self.node("Slice", value, *(self.constant(part, numpy.array([bound])) for part, bound in bounds))
