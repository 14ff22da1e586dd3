"""A model's config.json: read from its folder, or made from the header of a GGUF file."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from colbuild.arch import ARCHITECTURES
from colbuild.errors import BuildError
from colbuild.ops.source.gguf_file import GGUFHeader, is_gguf, read_header

CONFIG_FILE = "config.json"
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_F32, _F16, _BF16 = 0, 1, 30
_TORCH_NAMES = {_F32: "float32", _F16: "float16", _BF16: "bfloat16"}


def read_config(path: Path) -> dict[str, Any]:
    """The configuration of a model, as transformers' config.json holds it.

    Args:
        path: A Hugging Face model folder or a GGUF file.

    Raises:
        BuildError: It is neither, it is damaged, or it needs code of its own to run.
    """
    try:
        if path.is_dir():
            return _read_folder(path)
        if is_gguf(path):
            return config_from_gguf(read_header(path), path.name)
    except OSError as error:
        raise BuildError(f"the model {path} cannot be read: {error.strerror or error}") from error
    raise _not_a_model(path)


def config_from_gguf(header: GGUFHeader, name: str) -> dict[str, Any]:
    """Makes transformers' configuration from a GGUF header.

    Of an architecture that colbuild does not know, only `model_type` is given, for `read_structure` to refuse it.

    Raises:
        BuildError: The header lacks something, or describes what transformers' configuration cannot.
    """
    facts = header.metadata
    kind = str(facts.get("general.architecture", "unknown"))
    if kind in ARCHITECTURES and kind != "llama":
        raise BuildError(
            f"{name} holds a {kind} model; of GGUF files colbuild reads llama models only",
            hint="Use the model's safetensors folder instead.",
        )
    if kind != "llama":
        return {"model_type": kind}
    architecture = ARCHITECTURES[kind]
    _refuse_variants(header, name)
    read = _Reader(facts, kind, name)
    heads = read.whole("attention.head_count")
    hidden = read.whole("embedding_length")
    embedding = header.tensors.get("token_embd.weight")
    if embedding is None:
        raise BuildError(f"{name} has no tensor 'token_embd.weight': it holds no whole model")
    head_dim = read.whole("attention.key_length", read.whole("rope.dimension_count", hidden // heads))
    dtype = stored_dtype(header)
    config = {
        "architectures": [architecture.model_class],
        "model_type": kind,
        "hidden_act": "silu",
        "vocab_size": embedding.shape[0],
        "hidden_size": hidden,
        "intermediate_size": read.whole("feed_forward_length"),
        "num_hidden_layers": read.whole("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": read.whole("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "max_position_embeddings": read.whole("context_length"),
        "rms_norm_eps": read.real("attention.layer_norm_rms_epsilon"),
        "rope_theta": read.real("rope.freq_base", 10000.0),
        "attention_bias": "blk.0.attn_q.bias" in header.tensors,
        "mlp_bias": "blk.0.ffn_up.bias" in header.tensors,
        "tie_word_embeddings": "output.weight" not in header.tensors,
        "dtype": dtype,
        "torch_dtype": dtype,
    }
    for token in ("bos", "eos"):
        config[f"{token}_token_id"] = facts.get(f"tokenizer.ggml.{token}_token_id")
    if "tokenizer.ggml.padding_token_id" in facts:
        config["pad_token_id"] = facts["tokenizer.ggml.padding_token_id"]
    return config


def stored_dtype(header: GGUFHeader) -> str:
    """The type that the weights are worth keeping in: their own, or bfloat16 once they were quantised.

    Norms are always float32 in a GGUF file, whatever they were before, so only matrices count.
    """
    kinds = {entry.kind for entry in header.tensors.values() if len(entry.shape) > 1}
    if not kinds <= _TORCH_NAMES.keys():
        return "bfloat16"
    return _TORCH_NAMES[kinds.pop()] if len(kinds) == 1 else "float32"


def _read_folder(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    if not path.is_file():
        ggufs = sorted(entry.name for entry in folder.glob("*.gguf"))
        hint = f"It holds GGUF files; name one of them: {', '.join(ggufs[:3])}." if ggufs else None
        raise BuildError(f"{folder} is not a model: it has no {CONFIG_FILE}", hint=hint)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BuildError(f"{path} is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise BuildError(f"{path} holds no JSON object")
    if config.get("auto_map"):
        raise BuildError(
            f"{path} asks for code of its own ('auto_map'), which colbuild never runs",
            hint="Use a model whose architecture transformers itself knows.",
        )
    if config.get("quantization_config"):
        raise BuildError(
            f"{path} describes quantised weights ('quantization_config'), which cannot be trained or subset",
            hint="Use the model's original weights, or a GGUF file, which is dequantised.",
        )
    return config


def _not_a_model(path: Path) -> BuildError:
    if path.suffix in _PICKLED:
        return BuildError(
            f"{path.name} holds pickled weights, which run code when they are loaded",
            hint="Convert it to safetensors, and name the model's folder.",
        )
    if path.suffix == ".safetensors":
        return BuildError(
            f"{path.name} holds weights only", hint=f"Name the folder it is in, with its {CONFIG_FILE} and tokenizer."
        )
    return BuildError(f"{path.name} is neither a model folder nor a GGUF file")


def _refuse_variants(header: GGUFHeader, name: str) -> None:
    """Refuses what a llama GGUF may be beyond transformers' LlamaForCausalLM, rather than convert it wrongly."""
    facts = header.metadata
    if facts.get("llama.expert_count", 0):
        raise BuildError(f"{name} is a mixture of experts, which is not supported")
    scaling = facts.get("llama.rope.scaling.type", "none")
    if "rope_freqs.weight" in header.tensors or scaling != "none":
        raise BuildError(
            f"{name} scales its rotary positions, and a GGUF file does not say how in transformers' terms",
            hint="Use the model's safetensors folder instead.",
        )


class _Reader:
    """Reads an architecture's values with the errors that a user can act on."""

    def __init__(self, facts: Mapping[str, Any], prefix: str, name: str) -> None:
        self._facts, self._prefix, self._name = facts, prefix, name

    def whole(self, key: str, default: int | None = None) -> int:
        """A whole number; an array, one value for each layer, is none. Raises BuildError."""
        value = self._facts.get(f"{self._prefix}.{key}", default)
        if not isinstance(value, int):
            raise self._unusable(key, value, "one whole number")
        return value

    def real(self, key: str, default: float | None = None) -> float:
        """A number. Raises BuildError."""
        value = self._facts.get(f"{self._prefix}.{key}", default)
        if not isinstance(value, int | float):
            raise self._unusable(key, value, "a number")
        return _shortest(float(value))

    def _unusable(self, key: str, value: object, wanted: str) -> BuildError:
        what = "is missing" if value is None else f"is not {wanted}"
        return BuildError(f"{self._name}: '{self._prefix}.{key}' {what}, so its header is not that of a llama model")


def _shortest(value: float) -> float:
    """The shortest decimal that is the same float32: GGUF keeps 1e-5 as 9.999999747378752e-06."""
    for digits in range(1, 10):
        candidate = float(f"{value:.{digits}g}")
        if struct.pack("<f", candidate) == struct.pack("<f", value):
            return candidate
    return value
