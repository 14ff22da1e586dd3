"""Tiny models as GGUF files, written the way llama.cpp's converter does."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import gguf
import numpy
from safetensors.numpy import load_file

NORMAL, CONTROL = 1, 3
_KINDS = {name: name for name in ("llama", "qwen2", "qwen3", "granite", "olmo2")} | {"gemma3_text": "gemma3"}
_PERMUTED = ("llama", "granite")
"""Kinds whose queries and keys llama.cpp's converter interleaves."""


def write_gguf(
    model: Path,
    path: Path,
    kind: gguf.GGMLQuantizationType,
    *,
    architecture: str | None = None,
    splitter: str = "gpt-2",
    tokenizer: bool = True,
    extra: dict[str, numpy.ndarray] | None = None,
    facts: dict[str, Any] | None = None,
    tensors_in_part: int = 0,
    endianess: gguf.GGUFEndian = gguf.GGUFEndian.LITTLE,
) -> dict[str, numpy.ndarray]:
    """Writes a folder's model as GGUF; gives the values that its tensors have afterwards, under their old names.

    Args:
        model: A Hugging Face folder.
        path: The file; of a split one without the numbers.
        kind: The type of matrices.
        architecture: What the file says instead of the model's.
        splitter: `tokenizer.ggml.pre`.
        tokenizer: Whether it has one.
        extra: More tensors.
        facts: More metadata.
        tensors_in_part: Tensors in each file of a split one; 0: one file.
        endianess: The order of bytes.
    """
    config = json.loads((model / "config.json").read_text())
    own = _KINDS[config["model_type"]]
    writer = gguf.GGUFWriter(path, architecture or own, split_max_tensors=tensors_in_part, endianess=endianess)
    writer.add_license("apache-2.0")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    if own in _PERMUTED:
        writer.add_rope_dimension_count(head_dim)
    elif own != "qwen2":
        writer.add_key_length(head_dim)
    if own == "granite":
        writer.add_attention_scale(config["attention_multiplier"])
        writer.add_embedding_scale(config["embedding_multiplier"])
        writer.add_residual_scale(config["residual_multiplier"])
        writer.add_logit_scale(config["logits_scaling"])
    rotary = config["rope_parameters"]
    if own == "gemma3":
        writer.add_sliding_window(config["sliding_window"])
        rotary = rotary["full_attention"]
    writer.add_rope_freq_base(rotary["rope_theta"])
    if rotary["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rotary["factor"])
    if rotary["rope_type"] == "llama3":
        extra = {"rope_freqs.weight": llama3_divisors(rotary, head_dim), **(extra or {})}
    if tokenizer:
        _add_tokenizer(writer, model, splitter, facts or {})
    for key, value in (facts or {}).items():
        _ADD[type(value)](writer, key, value)
    names = gguf.get_tensor_name_map(
        next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == own), config["num_hidden_layers"]
    )
    interleaved = {"q_proj": heads, "k_proj": kv_heads} if own in _PERMUTED else {}
    kept = {}
    for name, values in sorted(load_file(model / "model.safetensors").items()):
        stored, kept[name] = _quantise(values, kind)
        part = name.rsplit(".", 1)[0].rsplit(".", 1)[-1]
        if part in interleaved:
            stored = _interleave(stored, interleaved[part])
        if own == "gemma3" and name.endswith("norm.weight"):
            stored = stored + 1
        called = names.get_name(name, try_suffixes=(".weight", ".bias"))
        writer.add_tensor(called, stored, raw_dtype=kind if stored.ndim > 1 else None)
    for name, values in (extra or {}).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return kept


_ADD = {
    bool: gguf.GGUFWriter.add_bool,
    int: gguf.GGUFWriter.add_uint32,
    float: gguf.GGUFWriter.add_float32,
    str: gguf.GGUFWriter.add_string,
    list: gguf.GGUFWriter.add_array,
}


def llama3_divisors(rotary: dict[str, Any], head_dim: int) -> numpy.ndarray:
    """What llama.cpp's converter stores of Llama 3's scaling of rotary positions."""
    factor, low, high = (rotary[name] for name in ("factor", "low_freq_factor", "high_freq_factor"))
    positions, found = rotary["original_max_position_embeddings"], []
    for place in range(0, head_dim, 2):
        wave = 2 * math.pi * rotary["rope_theta"] ** (place / head_dim)
        if wave < positions / high:
            found.append(1.0)
        elif wave > positions / low:
            found.append(factor)
        else:
            smooth = (positions / wave - low) / (high - low)
            found.append(1 / ((1 - smooth) / factor + smooth))
    return numpy.array(found, numpy.float32)


def _quantise(values: numpy.ndarray, kind: gguf.GGMLQuantizationType) -> tuple[numpy.ndarray, numpy.ndarray]:
    """What is stored, and what it is worth; norms and biases stay float32."""
    if values.ndim == 1:
        return values, values
    stored = gguf.quants.quantize(values, kind)
    return stored, gguf.quants.dequantize(stored, kind).reshape(values.shape)


def _interleave(rows: numpy.ndarray, heads: int) -> numpy.ndarray:
    """The order of rows that llama.cpp's rotation wants; rows may be quantised, as blocks never cross them."""
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return numpy.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows.shape))


def _add_tokenizer(writer: gguf.GGUFWriter, model: Path, splitter: str, facts: dict[str, Any]) -> None:
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    settings = json.loads((model / "tokenizer_config.json").read_text())
    vocabulary = tokenizer["model"]["vocab"] | {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    special = {token["id"] for token in tokenizer["added_tokens"]}
    types = [CONTROL if token in special else NORMAL for token in range(len(tokens))]
    if tokenizer["model"].get("byte_fallback"):
        writer.add_tokenizer_model("llama")
        writer.add_token_list(tokens)
        # As SentencePiece scores a vocabulary that was trained by merging: the earlier, the better.
        writer.add_token_scores([-float(place) for place in range(len(tokens))])
        writer.add_token_types(
            [6 if token.startswith("<0x") else kind for token, kind in zip(tokens, types, strict=True)]
        )
    else:
        merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"]]
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(splitter)
        writer.add_token_list(tokens)
        writer.add_token_types(types)
        writer.add_token_merges(merges)
    for place in ("bos", "eos"):
        token = settings.get(f"{place}_token")
        if token is not None:
            writer.add_uint32(f"tokenizer.ggml.{place}_token_id", vocabulary[token])
    if "tokenizer.ggml.add_bos_token" not in facts and splitter == "gpt-2":
        writer.add_add_bos_token(False)
    if settings.get("chat_template"):
        writer.add_chat_template(settings["chat_template"])
