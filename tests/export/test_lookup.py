"""Rows of a rounded table, looked up in a graph, are those of the table."""

from __future__ import annotations

import numpy
import onnx_ir
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from colbuild.export.graph.graph_nodes import Use, add_initializer, replace_node
from colbuild.export.rounding.block_rounding import Blocks, round_blocks
from colbuild.export.rounding.quantise_lookup import look_up
from colbuild.export.rounding.quantised_graph import packed


def looked_up(weight: Blocks, ids: numpy.ndarray) -> numpy.ndarray:
    """What a graph gives that has nothing but the lookup."""
    source = onnx_ir.Value(name="ids", type=onnx_ir.TensorType(onnx_ir.DataType.INT64), shape=onnx_ir.Shape(["b", "n"]))
    table = onnx_ir.Value(name="table")
    gather = onnx_ir.node("Gather", [table, source], {"axis": 0})
    [rows] = gather.outputs
    rows.name, rows.type = "rows", onnx_ir.TensorType(onnx_ir.DataType.FLOAT)
    rows.shape = onnx_ir.Shape(["b", "n", weight.columns])
    graph = onnx_ir.Graph([source], [rows], nodes=[gather], opset_imports={"": 21}, name="lookup")
    zeros = None if weight.zeros is None else add_initializer(graph, "zeros", packed(weight.zeros, weight.bits))
    stored = (
        add_initializer(graph, "bytes", packed(weight.codes, weight.bits)),
        add_initializer(graph, "scales", weight.scales.numpy()),
        zeros,
    )
    replace_node(graph, gather, look_up(graph, Use(gather, source, "table"), weight, stored))
    model = onnx_ir.to_proto(onnx_ir.Model(graph, ir_version=10)).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    found: numpy.ndarray = session.run(["rows"], {"ids": ids})[0]
    return found


@pytest.mark.parametrize("bits", [4, 8])
@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 9),
    columns=st.integers(1, 150),
    block=st.sampled_from([16, 32, 64, 128]),
    ids=st.lists(st.integers(0, 8), min_size=2, max_size=6),
)
def test_rows_are_those_of_the_rounded_table(bits: int, rows: int, columns: int, block: int, ids: list[int]):
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows * columns))
    blocks = round_blocks(weight, bits, block)
    asked = numpy.array([ids[:-1], ids[1:]]) % rows
    assert numpy.array_equal(looked_up(blocks, asked), blocks.values().numpy()[asked])
