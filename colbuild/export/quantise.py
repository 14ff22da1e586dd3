"""Weight-only 8-bit: each block of a row shares one scale, and a tied embedding and head share one tensor.

`MatMulNBits` stores a weight [N, K] as bytes [N, blocks, block] with scales [N, blocks]; `GatherBlockQuantized` reads rows
of those very bytes, so the embedding costs nothing beside the head::

    ids ──> GatherBlockQuantized ──> Reshape ──> … ──> MatMulNBits ──> logits
                 │        └── scales, reshaped ──┐          │
                 └────────────── bytes [vocab, blocks, block], once

Symmetric around byte 128 and without zero points: for SmolLM2-135M this costs 0.4% of perplexity, zero points would
cost 4 MB for another 0.2%.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy
import onnx_ir
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass

from colbuild.export.graph import Use, add_initializer, fill_rest, linears, lookups, replace_node

CONTRIB: Final = "com.microsoft"
BITS: Final = 8
INT8_ACTIVATIONS: Final = 4
"""`accuracy_level` of MatMulNBits that multiplies bytes by bytes; at level 0 decoding is twenty times slower."""


@dataclass(frozen=True)
class Quantised:
    """One weight [rows, columns] in blocks.

    Attributes:
        data: uint8 [rows, blocks, block].
        scales: float32 [rows, blocks].
        rows: N.
        columns: K, without the padding of the last block.
        blocks: Blocks in a row.
    """

    data: onnx_ir.Value
    scales: onnx_ir.Value
    rows: int
    columns: int
    blocks: int


def fill_int8(model: onnx_ir.Model, weights: Mapping[str, torch.Tensor], block: int) -> None:
    """Fills in the weights: matrices and embedding in 8-bit blocks, the small rest (norms, biases) in float32."""
    graph = model.graph
    stored: dict[str, Quantised] = {}
    with _root_logger_kept():
        quantise = _quantiser(block)

    def quantised(name: str) -> Quantised:
        if name not in stored:
            weight = weights[name].float()
            data, scales, _ = quantise(numpy.ascontiguousarray(weight.T.numpy()))
            stored[name] = Quantised(
                add_initializer(graph, f"{name}.bytes", data),
                add_initializer(graph, f"{name}.scales", scales),
                rows=weight.shape[0],
                columns=weight.shape[1],
                blocks=scales.shape[1],
            )
        return stored[name]

    for linear in linears(graph):
        weight = quantised(linear.weight)
        attributes = {
            "K": weight.columns,
            "N": weight.rows,
            "bits": BITS,
            "block_size": block,
            "accuracy_level": INT8_ACTIVATIONS,
        }
        inputs = [linear.source, weight.data, weight.scales]
        replace_node(graph, linear.node, [onnx_ir.node("MatMulNBits", inputs, attributes, domain=CONTRIB)])
    for lookup in lookups(graph):
        _replace_lookup(graph, lookup, quantised(lookup.weight), block)
    graph.opset_imports[CONTRIB] = 1
    RemoveUnusedNodesPass()(model)
    fill_rest(model, weights)


def _replace_lookup(graph: onnx_ir.Graph, lookup: Use, weight: Quantised, block: int) -> None:
    name, blocks = lookup.weight, weight.blocks
    spread = add_initializer(graph, f"{name}.scales_shape", numpy.array([weight.rows, blocks, 1]))
    joined = add_initializer(graph, f"{name}.row_shape", numpy.array([0, 0, blocks * block]))
    scales = onnx_ir.node("Reshape", [weight.scales, spread])
    attributes = {"bits": BITS, "block_size": block, "gather_axis": 0, "quantize_axis": 2}
    rows = onnx_ir.node(
        "GatherBlockQuantized", [weight.data, lookup.source, scales.outputs[0]], attributes, domain=CONTRIB
    )
    nodes = [scales, rows, onnx_ir.node("Reshape", [rows.outputs[0], joined])]
    if blocks * block != weight.columns:
        starts, ends, axes = (
            add_initializer(graph, f"{name}.{part}", numpy.array([number]))
            for part, number in (("first", 0), ("columns", weight.columns), ("axis", 2))
        )
        nodes.append(onnx_ir.node("Slice", [nodes[-1].outputs[0], starts, ends, axes]))
    replace_node(graph, lookup.node, nodes)


def _quantiser(block: int) -> Any:
    """Onnxruntime's own block quantiser: float32 [K, N] -> bytes [N, blocks, block], scales [N, blocks], zero points."""
    from onnxruntime.quantization.matmul_nbits_quantizer import (
        DefaultWeightOnlyQuantConfig,
        DefaultWeightOnlyQuantizer,
    )

    config = DefaultWeightOnlyQuantConfig(block_size=block, is_symmetric=True, bits=BITS)
    return DefaultWeightOnlyQuantizer(config).qbits_block_quant


@contextmanager
def _root_logger_kept() -> Iterator[None]:
    """Importing onnxruntime's quantiser (seen in 1.32) sets up the root logger, and every library starts to chat."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    for handler in [handler for handler in root.handlers if handler not in handlers]:
        root.removeHandler(handler)
