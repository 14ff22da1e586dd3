"""Finding and replacing the nodes of a graph that read weights, and filling weights in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy.typing
import onnx_ir
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass

Array = numpy.typing.NDArray[Any]
CONTRIB: Final = "com.microsoft"
"""The domain of onnxruntime's own operators."""


@dataclass(frozen=True)
class Use:
    """A node that reads a weight of the checkpoint.

    Attributes:
        node: A MatMul that multiplies x [..., K] by the transpose of the weight [N, K], or a Gather of its rows.
        source: What the node reads besides the weight: x, or the rows' indices.
        weight: The weight's name in the checkpoint.
    """

    node: onnx_ir.Node
    source: onnx_ir.Value
    weight: str


def linears(graph: onnx_ir.Graph) -> list[Use]:
    """Every matrix product with a weight of the checkpoint, in the order of computation."""
    found = []
    for node in graph:
        if node.op_type == "MatMul":
            source, right = node.inputs
            transpose = None if right is None else right.producer()
            weight = None if transpose is None or transpose.op_type != "Transpose" else transpose.inputs[0]
            if source is not None and _is_empty(weight):
                found.append(Use(node, source, _name(weight)))
    return found


def lookups(graph: onnx_ir.Graph) -> list[Use]:
    """Every lookup of rows in a weight of the checkpoint: the embedding."""
    found = []
    for node in graph:
        if node.op_type == "Gather":
            weight, indices = node.inputs
            if indices is not None and _is_empty(weight):
                found.append(Use(node, indices, _name(weight)))
    return found


def _is_empty(value: onnx_ir.Value | None) -> bool:
    return value is not None and value.is_initializer() and value.const_value is None


def _name(value: onnx_ir.Value | None) -> str:
    return "" if value is None or value.name is None else value.name


def set_value(value: onnx_ir.Value, array: Array) -> None:
    """Gives an initializer its value and shape."""
    value.const_value = onnx_ir.tensor(array, name=value.name)
    value.shape, value.type = onnx_ir.Shape(array.shape), onnx_ir.TensorType(value.const_value.dtype)


def add_initializer(graph: onnx_ir.Graph, name: str, array: Array) -> onnx_ir.Value:
    """A new initializer with a value."""
    value = onnx_ir.Value(name=name)
    set_value(value, array)
    graph.register_initializer(value)
    return value


def replace_node(graph: onnx_ir.Graph, old: onnx_ir.Node, new: list[onnx_ir.Node]) -> None:
    """Puts nodes in the place of one; the last one's outputs take the names and the uses of the old one's."""
    replace_nodes(graph, [old], new)


def replace_nodes(graph: onnx_ir.Graph, old: list[onnx_ir.Node], new: list[onnx_ir.Node]) -> None:
    """The same for several, none of which reads what another gives; the last new one has an output for each of theirs."""
    results, taken = new[-1].outputs, [output for node in old for output in node.outputs]
    for result, each in zip(results, taken, strict=True):
        result.name, result.shape, result.type = each.name, each.shape, each.type
    onnx_ir.convenience.replace_nodes_and_values(graph, old[0], old, new, taken, list(results))


def fill_float(model: onnx_ir.Model, weights: Mapping[str, torch.Tensor]) -> None:
    """Fills in the weights in the graph's own type, each read when it is written; matrices are stored ready transposed.

    A tied embedding and head stay one initializer: the head transposes it when the session starts.
    """
    looked_up = {lookup.weight for lookup in lookups(model.graph)}
    for linear in linears(model.graph):
        if linear.weight not in looked_up:
            turned = onnx_ir.Value(name=f"{linear.weight}.transposed")
            _set_lazily(turned, weights[linear.weight].T, model.graph.initializers[linear.weight].dtype)
            model.graph.register_initializer(turned)
            linear.node.replace_input_with(1, turned)
    RemoveUnusedNodesPass()(model)
    fill_rest(model, weights)


def fill_rest(model: onnx_ir.Model, weights: Mapping[str, torch.Tensor]) -> None:
    """Fills every initializer that still has no value, as it is."""
    for name, value in model.graph.initializers.items():
        if value.const_value is None:
            _set_lazily(value, weights[name])


def _set_lazily(value: onnx_ir.Value, tensor: torch.Tensor, dtype: onnx_ir.DataType | None = None) -> None:
    """Gives an initializer a value of its type (float32 by default) that is computed when it is written, and not kept."""
    kind = dtype or value.dtype or onnx_ir.DataType.FLOAT
    half = kind is onnx_ir.DataType.FLOAT16

    def read() -> onnx_ir.TensorProtocol:
        whole = (tensor.half() if half else tensor.float()).contiguous()
        return onnx_ir.tensor(whole.numpy(), name=value.name)

    shape = onnx_ir.Shape(tuple(tensor.shape))
    value.shape, value.type = shape, onnx_ir.TensorType(kind)
    value.const_value = onnx_ir.LazyTensor(read, dtype=kind, shape=shape, name=value.name)
