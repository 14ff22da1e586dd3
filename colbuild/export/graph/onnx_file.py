"""Writing an ONNX file tensor by tensor.

The libraries build the whole message in memory first, two or three times the model's size. Here the small part is
serialised by the library, and each weight is written as it is read, so that memory stays at one tensor.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import onnx
import onnx_ir
from onnx_ir.external_data import convert_tensors_to_external

LARGEST_FILE: Final = 2**31 - 1
"""A protobuf message cannot be longer."""
SMALL: Final = 256
"""Bytes of a tensor that stays in the graph: lengths and axes, which a runtime must know to read it."""
LENGTH_DELIMITED: Final = 2
"""Protobuf's wire type for messages and bytes."""


def write_onnx(model: onnx_ir.Model, path: Path) -> int:
    """Writes a model as one file, or with its weights beside it where one file could not hold them.

    Files beside it are called `<name>_data`, `<name>_data_1` and so on, as Transformers.js expects; each is as large as a file
    may be, or one tensor. The model's weights are let go of.

    Returns:
        How many files are beside it.
    """
    parts = 0
    values = list(model.graph.initializers.values())
    tensors = [value.const_value for value in values if value.const_value is not None]
    heads = [_head(tensor) for tensor in tensors]
    messages = [len(head) + tensor.nbytes for head, tensor in zip(heads, tensors, strict=True)]
    fields = [_field(onnx.GraphProto.INITIALIZER_FIELD_NUMBER, length) for length in messages]
    weights = sum(len(field) + length for field, length in zip(fields, messages, strict=True))
    if weights > LARGEST_FILE - _slack(len(model.graph)):
        parts = _write_beside(model, path)
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
    return parts


def _write_beside(model: onnx_ir.Model, path: Path) -> int:
    """Writes the large weights into files of their own, in order, and then the rest; returns how many files these are."""
    groups: list[list[onnx_ir.Value]] = []
    room = 0
    for value in model.graph.initializers.values():
        if value.const_value is None or value.const_value.nbytes <= SMALL:
            continue
        room -= value.const_value.nbytes
        if room < 0:
            groups.append([])
            room = LARGEST_FILE - value.const_value.nbytes
        groups[-1].append(value)
    for number, group in enumerate(groups):
        name = f"{path.name}_data" + (f"_{number}" if number else "")
        tensors = [value.const_value for value in group if value.const_value is not None]
        for value, written in zip(group, convert_tensors_to_external(tensors, path.parent, name), strict=True):
            value.const_value = written
    onnx_ir.save(model, path)
    return len(groups)


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
