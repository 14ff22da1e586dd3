"""transformers' config.json from the header of a GGUF file."""

from __future__ import annotations

import struct
from typing import Any, Final

from colbuild.arch.files.gguf_architectures import KNOWN, READ
from colbuild.arch.files.gguf_header import GGUFHeader
from colbuild.arch.files.gguf_rotary import INSTEAD, rotary_scaling
from colbuild.bounds import LAYERS
from colbuild.errors import BuildError

_F32, _F16, _BF16 = 0, 1, 30
_TORCH_NAMES: Final = {_F32: "float32", _F16: "float16", _BF16: "bfloat16"}
READABLE: Final = frozenset(
    (_F32, _F16, _BF16, 2, 3, 6, 7, 8, 10, 11, 12, 13, 14, 16, 17, 18, 19, 20, 21, 22, 23, 29, 34, 35)
)
"""Numbers of the GGML types that the `gguf` package turns into floats."""

_NAMES: Final = {15: "Q8_K", 28: "F64", 31: "Q4_0_4_4", 32: "Q4_0_4_8", 33: "Q4_0_8_8", 39: "MXFP4", 40: "NVFP4"}
_MOST: Final = 1 << 31
_LARGEST: Final = float.fromhex("0x1.fffffep127")
"""Of the numbers in float32."""


def config_from_gguf(header: GGUFHeader) -> dict[str, Any]:
    """Makes transformers' configuration from a GGUF header.

    Of an architecture that colbuild does not know, only `model_type` is given, for `read_structure` to refuse it.

    Raises:
        BuildError: The header lacks something, or describes what transformers' configuration cannot.
    """
    facts, name = header.metadata, header.name
    kind = str(facts.get("general.architecture", "unknown"))
    if kind not in READ:
        _refuse_other(kind, name)
        return {"model_type": kind}
    architecture, form = READ[kind]
    read = _Reader(header, kind)
    if read.given("expert_count"):
        raise BuildError(
            f"{name} is a mixture of experts, which is not supported", hint="choose a model without experts"
        )
    _refuse_types(header)
    heads = read.whole("attention.head_count")
    hidden = read.whole("embedding_length")
    embedding = header.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise BuildError(f"{name} has no tensor 'token_embd.weight', so it is not a whole model")
    head_dim = read.whole("attention.key_length", read.whole("rope.dimension_count", hidden // heads))
    theta = read.real("rope.freq_base", 10000.0)
    dtype = stored_dtype(header)
    config = {
        "architectures": [architecture.model_class],
        "model_type": architecture.name,
        "vocab_size": embedding.shape[0],
        "hidden_size": hidden,
        "intermediate_size": read.whole("feed_forward_length"),
        "num_hidden_layers": read.whole("block_count", most=LAYERS),
        "num_attention_heads": heads,
        "num_key_value_heads": read.whole("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "max_position_embeddings": read.whole("context_length"),
        "rms_norm_eps": read.real("attention.layer_norm_rms_epsilon"),
        "rope_theta": theta,
        "tie_word_embeddings": "output.weight" not in header.tensors,
        "dtype": dtype,
        "torch_dtype": dtype,
    }
    if form.settings is not None:
        config |= form.settings(read, config)
    scaling = rotary_scaling(header, kind, theta)
    if scaling is not None:
        config["rope_scaling"] = scaling
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


def _refuse_other(kind: str, name: str) -> None:
    """Refuses an architecture that colbuild knows, but not from GGUF files."""
    if kind in KNOWN:
        raise BuildError(f"{name} holds a {kind} model; supported in GGUF files: {', '.join(READ)}", hint=INSTEAD)


def _refuse_types(header: GGUFHeader) -> None:
    for entry in header.tensors.values():
        if entry.kind not in READABLE:
            called = _NAMES.get(entry.kind, f"number {entry.kind}")
            raise BuildError(
                f"{header.name}: {entry.name} is of the GGML type {called}, which is not supported",
                hint="use a file of another quantisation (F16, Q8_0, Q4_K_M, …), or the model's safetensors folder",
            )


class _Reader:
    """Reads an architecture's values with the errors that a user can act on."""

    def __init__(self, header: GGUFHeader, prefix: str) -> None:
        self._header, self._prefix = header, prefix

    def given(self, key: str) -> Any:
        """Whatever there is; None if there is nothing."""
        return self._header.metadata.get(f"{self._prefix}.{key}")

    def has(self, tensor: str) -> bool:
        """Returns whether the file has a tensor."""
        return tensor in self._header.tensors

    def whole(self, key: str, default: int | None = None, most: int = _MOST) -> int:
        """A whole number from 1 to `most`; an array with the same number for each layer is one. Raises BuildError."""
        found = self.given(key)
        value = default if found is None else found
        if isinstance(value, tuple) and len(set(value)) == 1:
            value = value[0]
        if not isinstance(value, int) or not 1 <= value <= most:
            raise self._unusable(key, value, f"one whole number from 1 to {most:,}")
        return value

    def real(self, key: str, default: float | None = None) -> float:
        """A number. Raises BuildError."""
        found = self.given(key)
        value = default if found is None else found
        if not isinstance(value, int | float) or not abs(value) <= _LARGEST:
            raise self._unusable(key, value, "a number")
        return _shortest(float(value))

    def _unusable(self, key: str, value: object, wanted: str) -> BuildError:
        what = "is missing" if value is None else f"is not {wanted}"
        layers = " (its layers differ, which is not supported)" if isinstance(value, tuple) else ""
        return BuildError(
            f"{self._header.name}: '{self._prefix}.{key}' {what}{layers}, so its header is not that of a "
            f"{self._prefix} model that can be read",
            hint=INSTEAD,
        )


def _shortest(value: float) -> float:
    """The shortest decimal that is the same float32: GGUF keeps 1e-5 as 9.999999747378752e-06."""
    for digits in range(1, 10):
        candidate = float(f"{value:.{digits}g}")
        if struct.pack("<f", candidate) == struct.pack("<f", value):
            return candidate
    return value
