"""A model folder as llama.cpp reads it, for comparisons of speed."""

from __future__ import annotations

import re
from pathlib import Path

import gguf
import torch

from colbuild.weights.files.checkpoint import load_checkpoint

_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_gguf(model: Path, original: Path, kind: gguf.GGMLQuantizationType, path: Path) -> None:
    """Writes a llama with tied embeddings and its matrices in one of llama.cpp's kinds.

    Args:
        model: The model's folder.
        original: A GGUF file of the model that it was made from: tokenizer and all that both have alike.
        kind: Such as Q8_0.
        path: The file.
    """
    checkpoint = load_checkpoint(model)
    shape = checkpoint.structure.shape
    changed = {"llama.block_count": shape.layers, "llama.feed_forward_length": shape.ffn}
    writer = gguf.GGUFWriter(path, "llama")
    for field in gguf.GGUFReader(original).fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        inner = field.types[-1] if field.types[0] is gguf.GGUFValueType.ARRAY else None
        value = changed.get(field.name, field.contents())
        writer.add_key_value(field.name, value, field.types[0], sub_type=inner)
    for name, tensor in checkpoint.tensors.items():
        values = tensor.float()
        if re.search(r"[qk]_proj", name):
            values = _in_turns(values, shape.head_dim)
        if values.ndim == 1:
            writer.add_tensor(_renamed(name), values.numpy())
        else:
            writer.add_tensor(_renamed(name), gguf.quants.quantize(values.numpy(), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _renamed(name: str) -> str:
    found = re.fullmatch(r"model\.layers\.(\d+)\.(.+)\.weight", name)
    if found:
        return f"blk.{found[1]}.{_NAMES[found[2]]}.weight"
    return f"{_NAMES[name.removesuffix('.weight')]}.weight"


def _in_turns(rows: torch.Tensor, head_dim: int) -> torch.Tensor:
    """llama.cpp rotates rows that lie side by side, transformers those half a head apart."""
    halves = rows.unflatten(0, (-1, 2, head_dim // 2))
    return halves.transpose(1, 2).flatten(0, 2).contiguous()
