"""The tiny model as a GGUF file, written the way llama.cpp's converter does."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy
from safetensors.numpy import load_file

NORMAL, CONTROL = 1, 3
_PARTS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "embed_tokens": "token_embd",
    "lm_head": "output",
    "norm": "output_norm",
}


def write_gguf(
    model: Path,
    path: Path,
    kind: gguf.GGMLQuantizationType,
    *,
    architecture: str = "llama",
    splitter: str = "gpt-2",
    tokenizer: bool = True,
    extra: dict[str, numpy.ndarray] | None = None,
) -> dict[str, numpy.ndarray]:
    """Writes a folder's model as GGUF; gives the values that its tensors have afterwards, under their old names."""
    config = json.loads((model / "config.json").read_text())
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_license("apache-2.0")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_rope_dimension_count(config["hidden_size"] // config["num_attention_heads"])
    if tokenizer:
        _add_tokenizer(writer, model, splitter)
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    kept = {}
    for name, values in sorted(load_file(model / "model.safetensors").items()):
        stored, kept[name] = _quantise(values, kind)
        part = name.rsplit(".", 1)[0].rsplit(".", 1)[-1]
        if part in heads:
            stored = _interleave(stored, heads[part])
        writer.add_tensor(_name(name), stored, raw_dtype=kind if stored.ndim > 1 else None)
    for name, values in (extra or {}).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return kept


def _quantise(values: numpy.ndarray, kind: gguf.GGMLQuantizationType) -> tuple[numpy.ndarray, numpy.ndarray]:
    """What is stored, and what it is worth; norms stay float32."""
    if values.ndim == 1:
        return values, values
    stored = gguf.quants.quantize(values, kind)
    return stored, gguf.quants.dequantize(stored, kind).reshape(values.shape)


def _interleave(rows: numpy.ndarray, heads: int) -> numpy.ndarray:
    """The order of rows that llama.cpp's rotation wants; rows may be quantised, as blocks never cross them."""
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return numpy.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows.shape))


def _name(name: str) -> str:
    words = name.split(".")
    if words[1] == "layers":
        return f"blk.{words[2]}.{_PARTS['.'.join(words[3:-1])]}.{words[-1]}"
    return f"{_PARTS[words[-2]]}.{words[-1]}"


def _add_tokenizer(writer: gguf.GGUFWriter, model: Path, splitter: str) -> None:
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    settings = json.loads((model / "tokenizer_config.json").read_text())
    tokens = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].__getitem__)
    special = {token["id"] for token in tokenizer["added_tokens"]}
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(splitter)
    writer.add_token_list(tokens)
    writer.add_token_types([CONTROL if token in special else NORMAL for token in range(len(tokens))])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_chat_template(settings["chat_template"])
