"""What llama.cpp makes of each architecture that colbuild reads from GGUF files: its names, its order of rows, its settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from colbuild.arch import ARCHITECTURES, Architecture, Tensor


class Facts(Protocol):
    """The metadata of one architecture, its name left out of the keys."""

    def whole(self, key: str, default: int | None = None) -> int:
        """A whole number. Raises BuildError."""

    def real(self, key: str, default: float | None = None) -> float:
        """A number. Raises BuildError."""

    def given(self, key: str) -> Any:
        """Whatever there is; None if there is nothing."""

    def has(self, tensor: str) -> bool:
        """Whether the file has a tensor."""


Settings = Callable[[Facts, Mapping[str, Any]], Mapping[str, Any]]
"""From a file's facts, and what config.json says so far, to what else it says."""

_WHOLE: Final = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
_BLOCK: Final = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_GEMMA_BLOCK: Final = {
    **_BLOCK,
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
_GEMMA_EVERY: Final = 6
"""Every so many layers of gemma 3 one attends to all positions."""

_GEMMA_27B_LAYERS: Final = 62


@dataclass(frozen=True)
class GGUFArchitecture:
    """One kind of GGUF file.

    Attributes:
        model: The key of `ARCHITECTURES`, and `model_type` in config.json.
        settings: What config.json says beyond what all architectures have in common.
        in_block: Part of a layer -> what llama.cpp calls it.
        interleaved: Parts whose rows are interleaved: llama.cpp rotates neighbouring pairs of a head's channels there,
            transformers channel i with i + head_dim/2.
    """

    model: str
    settings: Settings
    in_block: Mapping[str, str] = field(default_factory=lambda: _BLOCK)
    interleaved: tuple[str, ...] = ()

    @property
    def architecture(self) -> Architecture:
        """Its table. What a norm of it adds to its weight, llama.cpp adds before it stores the weight."""
        return ARCHITECTURES[self.model]

    def stored_name(self, tensor: Tensor) -> str:
        """What llama.cpp calls a tensor."""
        stem, _, kind = tensor.name.rpartition(".")
        if tensor.layer is None:
            return f"{_WHOLE[stem]}.{kind}"
        part = stem.split(f".{tensor.layer}.", 1)[1]
        return f"blk.{tensor.layer}.{self.in_block[part]}.{kind}"


def _llama(facts: Facts, _: Mapping[str, Any]) -> Mapping[str, Any]:
    return {
        "hidden_act": "silu",
        "attention_bias": facts.has("blk.0.attn_q.bias"),
        "mlp_bias": facts.has("blk.0.ffn_up.bias"),
    }


def _qwen2(facts: Facts, _: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"hidden_act": "silu", "use_sliding_window": False}


def _qwen3(facts: Facts, _: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"hidden_act": "silu", "use_sliding_window": False, "attention_bias": facts.has("blk.0.attn_q.bias")}


def _gemma3(facts: Facts, config: Mapping[str, Any]) -> Mapping[str, Any]:
    layers, heads = config["num_hidden_layers"], config["num_attention_heads"]
    pattern = facts.given("attention.sliding_window_pattern")
    if isinstance(pattern, tuple) and len(pattern) == layers:
        slides = [bool(one) for one in pattern]
    else:
        every = pattern if isinstance(pattern, int) and pattern > 0 else _GEMMA_EVERY
        slides = [(layer + 1) % every != 0 for layer in range(layers)]
    # No file says by what queries are scaled; llama.cpp goes by the number of layers too.
    scalar = config["hidden_size"] // heads if layers == _GEMMA_27B_LAYERS else config["head_dim"]
    return {
        "hidden_activation": "gelu_pytorch_tanh",
        "attention_bias": False,
        "sliding_window": facts.whole("attention.sliding_window"),
        "layer_types": ["sliding_attention" if one else "full_attention" for one in slides],
        "query_pre_attn_scalar": scalar,
        "rope_local_base_freq": facts.real("rope.freq_base_swa", 10000.0),
        "final_logit_softcapping": facts.given("final_logit_softcapping"),
        "attn_logit_softcapping": facts.given("attn_logit_softcapping"),
    }


GGUF_ARCHITECTURES: Final[Mapping[str, GGUFArchitecture]] = {
    "llama": GGUFArchitecture("llama", _llama, interleaved=("self_attn.q_proj", "self_attn.k_proj")),
    "qwen2": GGUFArchitecture("qwen2", _qwen2),
    "qwen3": GGUFArchitecture("qwen3", _qwen3),
    "gemma3": GGUFArchitecture("gemma3_text", _gemma3, _GEMMA_BLOCK),
}
"""`general.architecture` -> how its files are read."""
