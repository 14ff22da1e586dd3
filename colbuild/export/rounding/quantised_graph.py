"""Weight-only quantisation of a graph: each block of a row shares a scale, and a tied embedding and head share one tensor.

With onnxruntime's operators, `MatMulNBits` stores a weight [N, K] as bytes [N, blocks, bytes] with scales [N, blocks]. The
embedding looks up rows of those very bytes and scales them, so it costs nothing beside the head::

    ids ──> Gather ──> (bytes - 128) * scales ──> … ──> MatMulNBits ──> logits
               │                 │                          │
               └─ bytes [vocab, blocks, bytes], scales [vocab, blocks], once ─┘

With ONNX's alone (`colbuild.export.rounding.quantise_standard`) the same numbers are dequantised before they are used.

8 bits are symmetric around byte 128 and without zero points: for SmolLM2-135M this costs 0.4% of perplexity, zero points would
cost 4 MB for another 0.2%. 4 bits have a zero point for each block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import numpy
import onnx_ir
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass

from colbuild.export.graph.graph_nodes import (
    CONTRIB,
    Array,
    Use,
    add_initializer,
    fill_rest,
    linears,
    lookups,
    replace_node,
    replace_nodes,
)
from colbuild.export.graph.grouped_attention import read_stacked
from colbuild.export.rounding.block_rounding import Blocks, stacked
from colbuild.export.rounding.quantise_lookup import look_up
from colbuild.export.rounding.quantise_standard import StandardForm

INT8_ACTIVATIONS: Final = 4
"""`accuracy_level` of MatMulNBits that multiplies bytes by bytes; at level 0 decoding is twenty times slower."""

Rounded = Callable[[str, torch.Tensor], Blocks]
"""Rounds the weight of a name."""


Product = tuple[Use, Blocks]
"""A matrix product, and the rounded matrix."""


class ContribForm:
    """Rounded weights as onnxruntime's own operators read them."""

    def __init__(self, graph: onnx_ir.Graph) -> None:
        self.graph = graph
        self.stored: dict[str, tuple[onnx_ir.Value, onnx_ir.Value, onnx_ir.Value | None]] = {}
        graph.opset_imports[CONTRIB] = 1

    def _store(self, name: str, weight: Blocks) -> tuple[onnx_ir.Value, onnx_ir.Value, onnx_ir.Value | None]:
        if name not in self.stored:
            data = add_initializer(self.graph, f"{name}.bytes", packed(weight.codes, weight.bits))
            scales = add_initializer(self.graph, f"{name}.scales", weight.scales.numpy())
            zeros = None
            if weight.zeros is not None:
                zeros = add_initializer(self.graph, f"{name}.zeros", packed(weight.zeros, weight.bits))
            self.stored[name] = (data, scales, zeros)
        return self.stored[name]

    def together(self, uses: Sequence[Use]) -> list[list[Use]]:
        """Products of the same x can be one: it is turned into bytes once, and threads meet once."""
        groups: dict[int, list[Use]] = {}
        for use in uses:
            groups.setdefault(id(use.source), []).append(use)
        return list(groups.values())

    def multiply(self, every: Sequence[Product]) -> list[onnx_ir.Node]:
        """Nodes in the place of the MatMuls of an x with matrices that are rounded alike; the last one has all results."""
        whole = stacked([weight for _, weight in every])
        data, scales, zeros = self._store(_joined([use.weight for use, _ in every]), whole)
        attributes = {
            "K": whole.columns,
            "N": whole.codes.shape[0],
            "bits": whole.bits,
            "block_size": whole.block,
            "accuracy_level": INT8_ACTIVATIONS,
        }
        inputs = [every[0][0].source, data, scales, *([] if zeros is None else [zeros])]
        product = onnx_ir.node("MatMulNBits", inputs, attributes, domain=CONTRIB)
        if len(every) == 1:
            return [product]
        rows = add_initializer(self.graph, f"{data.name}.rows", numpy.array([len(weight.codes) for _, weight in every]))
        return [product, onnx_ir.node("Split", [product.outputs[0], rows], {"axis": -1}, num_outputs=len(every))]

    def look_up(self, use: Use, weight: Blocks) -> list[onnx_ir.Node]:
        """Nodes in the place of a Gather, in plain operators."""
        return look_up(self.graph, use, weight, self._store(use.weight, weight))


FORMS: Final[Mapping[str, Any]] = {"contrib": ContribForm, "standard": StandardForm}


def fill_quantised(model: onnx_ir.Model, weights: Mapping[str, torch.Tensor], rounded: Rounded, operators: str) -> None:
    """Fills in the weights: matrices and tables rounded, the small rest (norms, biases) in float32."""
    graph = model.graph
    form = FORMS[operators](graph)
    # Each weight is rounded when its turn comes, and let go of: only what two nodes read is kept.
    tables = {use.weight for use in lookups(graph)}
    kept: dict[str, Blocks] = {}

    def blocks_of(name: str) -> Blocks:
        if name not in tables:
            return rounded(name, weights[name])
        if name not in kept:
            kept[name] = rounded(name, weights[name])
        return kept[name]

    for uses in form.together(linears(graph)):
        for alike in _alike([(use, blocks_of(use.weight)) for use in uses]):
            replace_nodes(graph, [use.node for use, _ in alike], form.multiply(alike))
    for use in lookups(graph):
        replace_node(graph, use.node, form.look_up(use, blocks_of(use.weight)))
    read_stacked(graph)
    RemoveUnusedNodesPass()(model)
    fill_rest(model, weights)


def _alike(every: Sequence[Product]) -> Iterable[list[Product]]:
    """Those of some matrices that can be stored as one: as many bits, and as large blocks."""
    groups: dict[tuple[int, int], list[Product]] = {}
    for use, weight in every:
        groups.setdefault((weight.bits, weight.block), []).append((use, weight))
    return groups.values()


def _joined(names: Sequence[str]) -> str:
    """A name for some weights as one, such as model.layers.0.self_attn.q_proj+k_proj.weight."""
    if len(names) == 1:
        return names[0]
    stem, _, _ = names[0].removesuffix(".weight").rpartition(".")
    kinds = (name.removesuffix(".weight").rpartition(".")[2] for name in names)
    return f"{stem}.{'+'.join(kinds)}.weight"


def packed(codes: torch.Tensor, bits: int) -> Array:
    """Codes as bytes along the last axis; of 4 bits two to a byte, the first one low."""
    if bits == 8:
        return codes.contiguous().numpy()
    even = torch.nn.functional.pad(codes, (0, codes.shape[-1] % 2))
    return (even[..., 0::2] | even[..., 1::2] << 4).contiguous().numpy()
