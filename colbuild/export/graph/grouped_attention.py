"""Attention as one operator of onnxruntime's, which rotates queries and keys and can write the cache in place.

    q ── RotaryEmbedding ─┐                          q ─┐
    k ── RotaryEmbedding ─┼─ Attention      ──>      k ─┼─ GroupQueryAttention
    v ────────────────────┘                          v ─┘

The operator counts positions from the left, padding included, and takes what stands on the left for text. Rotary attention
sees only how far apart two tokens are, so the count may begin anywhere; what is padding it learns by a number that is added
to its scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy
import onnx_ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from colbuild.arch import ARCHITECTURES, rotary_settings
from colbuild.export.graph.graph_nodes import CONTRIB, add_initializer, replace_node

_STEADY: Final = ("default", "linear", "llama3", "yarn")
"""Kinds of rotary tables whose angles grow evenly with the position."""
_WIDTH: Final = 16
"""The operator takes heads of a multiple of it."""
_PADDING: Final = -30_000.0
"""Added to the scores of padding. Finite, so that padding, which sees nothing else, comes to no NaN; float16 holds it."""


def can_group(config: Mapping[str, Any], head_dim: int) -> bool:
    """Returns whether the operator computes the attention of the model that a config.json describes."""
    steady = rotary_settings(config)["rope_type"] in _STEADY
    return ARCHITECTURES[config["model_type"]].graph.grouped and steady and head_dim % _WIDTH == 0


def group(model: onnx_ir.Model, window: int | None) -> None:
    """Puts the operator in the place of every Attention of a graph, and takes the input of positions away.

    Args:
        model: As it was built, of a model that can be (`can_group`).
        window: Of how many tokens each sees itself and those before; all when None.
    """
    graph = model.graph
    every = [node for node in graph if node.op_type == "Attention"]
    length, last, padding = _lengths_and_padding(graph, every[0])
    for node in every:
        query, key, value, _, past_key, past_value = node.inputs[:6]
        turned = [_rotation(one) for one in (query, key)]
        tables = [_table(turned[0].inputs[place]) for place in (1, 2)]
        attributes = {
            "num_heads": node.attributes["q_num_heads"].as_int(),
            "kv_num_heads": node.attributes["kv_num_heads"].as_int(),
            "scale": node.attributes["scale"].as_float(),
            "do_rotary": 1,
            **({} if window is None else {"local_window_size": window}),
        }
        read = [turned[0].inputs[0], turned[1].inputs[0], value, past_key, past_value]
        inputs = [*read, last, length, *tables, None, padding]
        new = onnx_ir.node("GroupQueryAttention", inputs, attributes, domain=CONTRIB, num_outputs=3)
        replace_node(graph, node, [new])
    graph.opset_imports[CONTRIB] = 1
    RemoveUnusedNodesPass()(model)
    for value in [one for one in graph.inputs if one.name == "position_ids"]:
        graph.inputs.remove(value)


def read_stacked(graph: onnx_ir.Graph) -> None:
    """Lets the operator read queries, keys and values as they lie in one tensor, where only it has them split."""
    for node in graph:
        if node.op_type != "GroupQueryAttention" or node.inputs[0] is None:
            continue
        split = node.inputs[0].producer()
        if split is not None and split.op_type == "Split" and list(split.outputs) == list(node.inputs[:3]):
            for place, value in enumerate((split.inputs[0], None, None)):
                node.replace_input_with(place, value)


def is_grouped(graph: onnx_ir.Graph) -> bool:
    """Returns whether a graph's attention is the operator's."""
    return any(node.op_type == "GroupQueryAttention" for node in graph)


def _rotation(value: onnx_ir.Value | None) -> onnx_ir.Node:
    node = None if value is None else value.producer()
    if node is None or node.op_type != "RotaryEmbedding":
        raise ValueError("an Attention does not read what is rotated")
    return node


def _table(value: onnx_ir.Value | None) -> onnx_ir.Value:
    """The whole table of cosines or sines whose rows a rotation is given."""
    gather = None if value is None else value.producer()
    if gather is None or gather.op_type != "Gather" or gather.inputs[0] is None:
        raise ValueError("a rotation does not read rows of a table")
    return gather.inputs[0]


def _lengths_and_padding(
    graph: onnx_ir.Graph, first: onnx_ir.Node
) -> tuple[onnx_ir.Value, onnx_ir.Value, onnx_ir.Value]:
    """What all layers read, computed at the graph's beginning.

    Returns:
        The length of text and padding, past and new; the last place of each row, [batch]; what padding is given,
        [batch, 1, new, length].
    """
    inputs = {value.name: value for value in graph.inputs}
    kind = first.outputs[1].dtype or onnx_ir.DataType.FLOAT
    nodes: list[onnx_ir.Node] = []

    def constant(name: str, array: Any) -> onnx_ir.Value:
        return add_initializer(graph, f"attention.{name}", numpy.asarray(array))

    def compute(operator: str, *read: onnx_ir.Value, **attributes: int) -> onnx_ir.Value:
        nodes.append(onnx_ir.node(operator, list(read), attributes))
        result = nodes[-1].outputs[0]
        result.name = f"attention.{operator}_{len(nodes)}"
        return result

    number = numpy.float16 if kind is onnx_ir.DataType.FLOAT16 else numpy.float32
    mask = inputs["attention_mask"]
    length = compute("Cast", compute("Shape", mask, start=1, end=2), to=onnx_ir.DataType.INT32)
    last = compute(
        "Expand", compute("Sub", length, constant("one", numpy.int32(1))), compute("Shape", mask, start=0, end=1)
    )
    is_text = compute("Cast", mask, to=onnx_ir.DataType.BOOL)
    score = compute("Where", is_text, constant("text", number(0)), constant("padding", number(_PADDING)))
    new = compute("Shape", inputs["input_ids"], start=1, end=2)
    wanted = compute("Concat", constant("batch_and_heads", [1, 1]), new, constant("every", [1]), axis=0)
    padding = compute("Expand", compute("Unsqueeze", score, constant("axes", [1, 2])), wanted)
    graph.insert_before(graph[0], nodes)
    return length, last, padding
