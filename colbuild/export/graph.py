"""The decoder's ONNX graph with a KV cache, made from a configuration; its weights are filled in afterwards.

The graph is built by the mobius library (operators of ONNX opset 24, names as in optimum). Tracing the PyTorch model
with `torch.onnx.export` gives the same logits and speed, but takes 40 to 70 s of CPU time and a copy of the weights for
SmolLM2-135M, where this takes 2 s and none: see `docs/packages.md`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy.typing
import onnx_ir
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass
from transformers import AutoConfig

from colbuild import __version__
from colbuild.errors import BuildError

ROTARY_TABLES: Final = ("cos_cache", "sin_cache")

Array = numpy.typing.NDArray[Any]


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


def decoder_graph(config: Mapping[str, Any], context: int) -> onnx_ir.Model:
    """The graph of the model that a config.json describes, with the checkpoint's tensor names as empty initializers.

    Args:
        config: What config.json holds.
        context: Positions beyond it are cut off the rotary tables, so that running past it is an error, not noise.

    Raises:
        BuildError: The configuration asks for something that the library cannot build.
    """
    import mobius

    try:
        settings = mobius.ArchitectureConfig.from_transformers(AutoConfig.for_model(**config))
        # mobius 0.1.0 looks for "use_mlp_bias", which llama's configuration calls "mlp_bias".
        biased = settings.mlp_bias or bool(config.get("mlp_bias", False))
        settings = replace(settings, mlp_bias=biased, dtype=onnx_ir.DataType.FLOAT)
        module = mobius.registry.get(config["model_type"])(settings)
        model: onnx_ir.Model = mobius.build_from_module(module, settings)["model"]
    except (KeyError, ValueError, NotImplementedError) as error:
        raise BuildError(f"no ONNX graph can be built for this model's config.json: {error}") from error
    _strip(model)
    for name, value in model.graph.initializers.items():
        if name.endswith(ROTARY_TABLES) and value.const_value is not None:
            set_value(value, value.const_value.numpy()[:context])
    return model


def check_names(model: onnx_ir.Model, weights: Collection[str]) -> None:
    """Compares an empty graph with the checkpoint that is to fill it.

    Raises:
        BuildError: The graph needs tensors that the checkpoint does not have, or leaves some out.
    """
    needed = {name for name, value in model.graph.initializers.items() if value.const_value is None}
    if odd := sorted(needed ^ set(weights)):
        raise BuildError(
            f"the ONNX graph and the model differ in these tensors: {', '.join(odd[:4])}{' …' if odd[4:] else ''}",
            hint="the model's config.json asks for something that the graph cannot hold; please report it",
        )


def _strip(model: onnx_ir.Model) -> None:
    """Removes what says how the graph was made: it is of no use to a device, and may differ between runs."""
    model.producer_name, model.producer_version = "colbuild", __version__
    model.graph.name = "decoder"
    model.doc_string = None
    model.metadata_props.clear()
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        graph.metadata_props.clear()
        for node in graph:
            node.metadata_props.clear()
            node.doc_string = None
            for output in node.outputs:
                output.metadata_props.clear()
    for function in model.functions.values():
        function.metadata_props.clear()


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
    """Puts nodes in the place of one; the last one's output takes the name and the uses of the old one's."""
    result, taken = new[-1].outputs[0], old.outputs[0]
    result.name, result.shape, result.type = taken.name, taken.shape, taken.type
    onnx_ir.convenience.replace_nodes_and_values(graph, old, [old], new, [taken], [result])


def fill_float(model: onnx_ir.Model, weights: Mapping[str, torch.Tensor], block: int = 0) -> None:
    """Fills in the weights in float32, each read when it is written; matrices are stored ready transposed.

    A tied embedding and head stay one initializer: the head transposes it when the session starts.
    """
    looked_up = {lookup.weight for lookup in lookups(model.graph)}
    for linear in linears(model.graph):
        if linear.weight not in looked_up:
            turned = onnx_ir.Value(name=f"{linear.weight}.transposed")
            _set_lazily(turned, weights[linear.weight].T)
            model.graph.register_initializer(turned)
            linear.node.replace_input_with(1, turned)
    RemoveUnusedNodesPass()(model)
    fill_rest(model, weights)


def fill_rest(model: onnx_ir.Model, weights: Mapping[str, torch.Tensor]) -> None:
    """Fills every initializer that still has no value, in float32 and as it is."""
    for name, value in model.graph.initializers.items():
        if value.const_value is None:
            _set_lazily(value, weights[name])


def _set_lazily(value: onnx_ir.Value, tensor: torch.Tensor) -> None:
    """Gives an initializer a value in float32 that is computed when it is written, and not kept."""

    def read() -> onnx_ir.TensorProtocol:
        return onnx_ir.tensor(tensor.float().contiguous().numpy(), name=value.name)

    value.shape, value.type = onnx_ir.Shape(tuple(tensor.shape)), onnx_ir.TensorType(onnx_ir.DataType.FLOAT)
    value.const_value = onnx_ir.LazyTensor(
        read, dtype=onnx_ir.DataType.FLOAT, shape=onnx_ir.Shape(tuple(tensor.shape)), name=value.name
    )
