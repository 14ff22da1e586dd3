"""The weights of a GGUF model under transformers' names, dequantised."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from math import prod
from pathlib import Path

import numpy
import numpy.typing
import torch

from colbuild.arch import NORMS, Role, Structure, tensors
from colbuild.arch.files.gguf_architectures import READ, gguf_name
from colbuild.arch.files.gguf_header import GGUFHeader, TensorEntry
from colbuild.arch.files.gguf_rotary import FREQUENCIES
from colbuild.errors import BuildError

Bytes = numpy.typing.NDArray[numpy.uint8]
Floats = numpy.typing.NDArray[numpy.float32]


def read_gguf_weights(
    header: GGUFHeader, structure: Structure, dtype: torch.dtype
) -> Iterator[tuple[str, torch.Tensor]]:
    """Reads every tensor of a model, one after the other.

    Args:
        header: The model's.
        structure: What the model is made of.
        dtype: What to convert to; exact where the file holds this type or was quantised from it.

    Yields:
        The name that transformers gives it, and the tensor.

    Raises:
        BuildError: A tensor is missing, unknown, of another shape, cut off, or of a type that cannot be read.
    """
    architecture, form = READ[header.metadata["general.architecture"]]
    wanted = {gguf_name(architecture, tensor): tensor for tensor in tensors(structure)}
    interleaved = tuple(architecture.block[part] for part in form.interleaved)
    unknown = sorted(header.tensors.keys() - wanted.keys() - {FREQUENCIES})
    missing = sorted(wanted.keys() - header.tensors.keys())
    if unknown or missing:
        lacks = (
            f"lacks {', '.join(missing[:4])}"
            if missing
            else f"has tensors that {architecture.name} does not have: {', '.join(unknown[:4])}"
        )
        raise BuildError(
            f"{header.name} {lacks}",
            hint="fetch it again, or use the model's safetensors folder",
        )
    read = _reader()
    for name, tensor in wanted.items():
        entry = header.tensors[name]
        if entry.shape != tensor.lengths:
            raise BuildError(f"{header.name}: {name} has the shape {entry.shape}; its header implies {tensor.lengths}")
        values = torch.from_numpy(read(entry)).reshape(tensor.lengths)
        if any(part in tensor.name for part in interleaved):
            values = _unpermute(values, structure.shape.head_dim)
        if architecture.norm_offset and tensor.role in (*NORMS, Role.HEAD_NORM):
            values = values - architecture.norm_offset
        yield tensor.name, values.to(dtype).contiguous()


def _unpermute(rows: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Undoes llama.cpp's order of rows, [heads*head_dim, ...]: it interleaves the two halves of each head."""
    return rows.reshape(-1, head_dim // 2, 2, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape)


def _reader() -> Callable[[TensorEntry], Floats]:
    """How to read a tensor as float32 of its own memory; the package is slow to import, hence the function."""
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import dequantize, quant_shape_to_byte_shape

    @cache
    def content(path: Path) -> Bytes:
        return numpy.memmap(path, dtype=numpy.uint8, mode="r")

    def read(entry: TensorEntry) -> Floats:
        try:
            kind = GGMLQuantizationType(entry.kind)
            shape = quant_shape_to_byte_shape(entry.shape, kind)
            raw = content(entry.path)[entry.offset : entry.offset + prod(shape)]
            if raw.size != prod(shape):
                raise BuildError(
                    f"{entry.path.name} is truncated: it ends within or before {entry.name}",
                    hint="fetch it again, or compare its size with the original's",
                )
            return numpy.array(dequantize(raw.reshape(shape), kind), dtype=numpy.float32)
        except (ValueError, NotImplementedError) as error:
            raise BuildError(f"{entry.path.name}: the type of {entry.name} cannot be read ({error})") from None

    return read
