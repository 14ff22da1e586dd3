"""Writing an ONNX file tensor by tensor.

The libraries build the whole message in memory first, two or three times the model's size. Here the small part is
serialised by the library, and each weight is written as it is read, so that memory stays at one tensor.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import onnx
import onnx_ir

LARGEST_FILE: Final = 2**31 - 1
"""A protobuf message cannot be longer."""
LENGTH_DELIMITED: Final = 2
"""Protobuf's wire type for messages and bytes."""


def write_onnx(model: onnx_ir.Model, path: Path) -> None:
    """Writes a model as one file, or with its weights in `<name>_data` beside it where one file could not hold them.

    The model's weights are let go of.
    """
    values = list(model.graph.initializers.values())
    tensors = [value.const_value for value in values if value.const_value is not None]
    heads = [_head(tensor) for tensor in tensors]
    messages = [len(head) + tensor.nbytes for head, tensor in zip(heads, tensors, strict=True)]
    fields = [_field(onnx.GraphProto.INITIALIZER_FIELD_NUMBER, length) for length in messages]
    weights = sum(len(field) + length for field, length in zip(fields, messages, strict=True))
    if weights > LARGEST_FILE - _slack(len(model.graph)):
        onnx_ir.save(model, path, external_data=f"{path.name}_data")
    else:
        model.graph.initializers.clear()
        start, graph = _without_weights(model)
        with path.open("wb") as file:
            file.write(start)
            file.write(_field(onnx.ModelProto.GRAPH_FIELD_NUMBER, len(graph) + weights))
            file.write(graph)
            for field, head, tensor in zip(fields, heads, tensors, strict=True):
                file.write(field)
                file.write(head)
                file.write(tensor.tobytes())
    # Something in onnxscript 0.7 keeps every graph for the life of the process; it need not keep the weights too.
    for value in values:
        value.const_value = None


def _without_weights(model: onnx_ir.Model) -> tuple[bytes, bytes]:
    """What stands before the graph in the file, and the graph up to its initializers."""
    message = onnx_ir.to_proto(model)
    # onnxruntime infers the types of inner values anyway.
    del message.graph.value_info[:]
    for function in message.functions:
        del function.value_info[:]
    graph = bytes(message.graph.SerializeToString(deterministic=True))
    message.ClearField("graph")
    return bytes(message.SerializeToString(deterministic=True)), graph


def _head(tensor: onnx_ir.TensorProtocol) -> bytes:
    """A TensorProto up to its bytes: name, type, lengths, and the field that announces them."""
    head = onnx.TensorProto(name=tensor.name, data_type=tensor.dtype.value, dims=list(tensor.shape.numpy()))
    announced = _field(onnx.TensorProto.RAW_DATA_FIELD_NUMBER, tensor.nbytes)
    return bytes(head.SerializeToString(deterministic=True)) + announced


def _field(number: int, length: int) -> bytes:
    return _varint(number << 3 | LENGTH_DELIMITED) + _varint(length)


def _varint(number: int) -> bytes:
    """Protobuf's integers: seven bits a byte, lowest first, the high bit set on all but the last."""
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def _slack(nodes: int) -> int:
    """More room than the graph without its weights can need."""
    return 4096 * (nodes + 64)
