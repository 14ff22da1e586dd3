"""Converts a graph to an older ONNX operator set: newer operators are replaced by their ONNX definitions.

mobius builds with the operators of opset 24: `Attention`, `RotaryEmbedding` and `RMSNormalization` are newer than many
compilers for NPUs. ONNX carries their definitions in operators that are older, and its inliner puts these in their place.
"""

from __future__ import annotations

import onnx
import onnx_ir
from onnx.inliner import inline_selected_functions
from onnx_ir.passes.common import IdentityEliminationPass, RemoveUnusedNodesPass

from colbuild.errors import BuildError


def in_opset(model: onnx_ir.Model, opset: int) -> onnx_ir.Model:
    """An empty graph in an older operator set; its initializers without a value stay so.

    Args:
        model: As it was built.
        opset: The version of ONNX's operator set.

    Raises:
        BuildError: An operator is not in that set, and ONNX does not say by which older ones it is defined.
    """
    if opset == model.opset_imports[""]:
        return model
    # Without a value these are no initializers to the inliner; a graph's inputs it takes as they are.
    empty = [name for name, value in model.graph.initializers.items() if value.const_value is None]
    for name in empty:
        model.graph.inputs.append(model.graph.initializers.pop(name))
    # What defines onnxruntime's own operators is for runtimes that lack these, and written in the newer set.
    model.functions.clear()
    message = _typed(onnx_ir.to_proto(model))
    newer = {node.op_type for node in message.graph.node if not _is_in(node, opset)}
    inlined = inline_selected_functions(
        onnx.shape_inference.infer_shapes(message), [("", name) for name in sorted(newer)], inline_schema_functions=True
    )
    for imported in inlined.opset_import:
        if imported.domain == "":
            imported.version = opset
    if left := sorted({node.op_type for node in inlined.graph.node if not _is_in(node, opset)}):
        raise BuildError(
            f"the graph needs the operator {left[0]}, which ONNX's operator set {opset} does not have in this form",
            hint="set a larger opset in the profile",
        )
    lowered: onnx_ir.Model = onnx_ir.from_proto(inlined)
    lowered.ir_version = onnx.helper.find_min_ir_version_for(list(inlined.opset_import), ignore_unknown=True)
    inputs = {value.name: value for value in lowered.graph.inputs}
    for name in empty:
        lowered.graph.inputs.remove(inputs[name])
        lowered.graph.initializers[name] = inputs[name]
    IdentityEliminationPass()(lowered)
    RemoveUnusedNodesPass()(lowered)
    return lowered


def _typed(message: onnx.ModelProto) -> onnx.ModelProto:
    """With the types of its initializers told, which some definitions ask for."""
    for tensor in message.graph.initializer:
        known = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        message.graph.value_info.append(known)
    return message


def _is_in(node: onnx.NodeProto, opset: int) -> bool:
    """Returns whether an operator, used as it is, is in ONNX's set; one of another domain is none of its business."""
    if node.domain != "":
        return True
    context = onnx.checker.C.CheckerContext()
    context.ir_version = onnx.IR_VERSION
    context.opset_imports = {"": opset}
    try:
        onnx.checker.check_node(node, context)
    except onnx.checker.ValidationError:
        return False
    return True
