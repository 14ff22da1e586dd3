"""The weights of a llama GGUF file under transformers' names, dequantised."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path

import numpy
import numpy.typing
import torch

from colbuild.arch import Structure, Tensor, tensors
from colbuild.errors import BuildError
from colbuild.ops.source.gguf_file import GGUFHeader, TensorEntry

_WHOLE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
_IN_BLOCK = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_ROTATED = ("self_attn.q_proj", "self_attn.k_proj")

Bytes = numpy.typing.NDArray[numpy.uint8]
Floats = numpy.typing.NDArray[numpy.float32]


def read_gguf_weights(
    path: Path, header: GGUFHeader, structure: Structure, dtype: torch.dtype
) -> Iterator[tuple[str, torch.Tensor]]:
    """Reads every tensor of a model, one after the other.

    Args:
        path: The file.
        header: Its header.
        structure: What the model is made of.
        dtype: What to convert to; exact where the file holds this type or was quantised from it.

    Yields:
        The name that transformers gives it, and the tensor.

    Raises:
        BuildError: A tensor is missing, unknown, of another shape, cut off, or of a type that cannot be read.
    """
    wanted = {gguf_name(tensor): tensor for tensor in tensors(structure)}
    unknown = sorted(header.tensors.keys() - wanted.keys())
    missing = sorted(wanted.keys() - header.tensors.keys())
    if unknown or missing:
        what = f"lacks {', '.join(missing[:4])}" if missing else f"has tensors of no llama: {', '.join(unknown[:4])}"
        raise BuildError(f"{path.name} {what}")
    content: Bytes = numpy.memmap(path, dtype=numpy.uint8, mode="r")
    dequantize = _dequantizer(path.name)
    for name, tensor in wanted.items():
        entry = header.tensors[name]
        if entry.shape != tensor.lengths:
            raise BuildError(f"{path.name}: {name} has the shape {entry.shape}; its header implies {tensor.lengths}")
        values = torch.from_numpy(dequantize(content, entry)).reshape(tensor.lengths)
        if any(part in tensor.name for part in _ROTATED):
            values = _unpermute(values, structure.shape.head_dim)
        yield tensor.name, values.to(dtype).contiguous()


def gguf_name(tensor: Tensor) -> str:
    """What llama.cpp calls a tensor."""
    stem, _, kind = tensor.name.rpartition(".")
    if tensor.layer is None:
        return f"{_WHOLE[stem]}.{kind}"
    part = stem.split(f".{tensor.layer}.", 1)[1]
    return f"blk.{tensor.layer}.{_IN_BLOCK[part]}.{kind}"


def _unpermute(rows: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Undoes llama.cpp's order of rows, [heads*head_dim, ...].

    llama.cpp rotates neighbouring pairs of a head's channels, transformers channel i with i + head_dim/2, so conversion to
    GGUF interleaves the two halves of each head.
    """
    return rows.reshape(-1, head_dim // 2, 2, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape)


def _dequantizer(file: str) -> Callable[[Bytes, TensorEntry], Floats]:
    """How to read a tensor as float32 of its own memory; the package is slow to import, hence the function."""
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import dequantize, quant_shape_to_byte_shape

    def read(content: Bytes, entry: TensorEntry) -> Floats:
        try:
            kind = GGMLQuantizationType(entry.kind)
            shape = quant_shape_to_byte_shape(entry.shape, kind)
            raw = content[entry.offset : entry.offset + prod(shape)]
            if raw.size != prod(shape):
                raise BuildError(
                    f"{file} is cut off: it ends within or before {entry.name}",
                    hint="Fetch it again, or compare its size with the original's.",
                )
            return numpy.array(dequantize(raw.reshape(shape), kind), dtype=numpy.float32)
        except (ValueError, NotImplementedError) as error:
            raise BuildError(f"{file}: the type of {entry.name} cannot be read ({error})") from None

    return read
