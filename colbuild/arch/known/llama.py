"""Architectures of llama's kind: RMSNorm, rotary positions, grouped-query attention, a gated feed-forward part."""

from __future__ import annotations

from typing import Final

from colbuild.arch.architecture import Architecture, Role, TensorPattern

_BLOCK: Final = "model.layers.{layer}"
_KEYS: Final = {
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "ffn": "intermediate_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "vocab": "vocab_size",
}
_BUFFERS: Final = (".rotary_emb.inv_freq",)

_EMBEDDING: Final = TensorPattern("model.embed_tokens.weight", ("vocab", "hidden"), Role.EMBEDDING)
_NORM: Final = TensorPattern("model.norm.weight", ("hidden",), Role.NORM)
_HEAD: Final = TensorPattern("lm_head.weight", ("vocab", "hidden"), Role.HEAD, ("tie_word_embeddings", False))
_ATTENTION: Final = (
    TensorPattern(f"{_BLOCK}.self_attn.q_proj.weight", ("heads*head_dim", "hidden"), Role.ATTENTION_IN),
    TensorPattern(f"{_BLOCK}.self_attn.k_proj.weight", ("kv_heads*head_dim", "hidden"), Role.ATTENTION_IN),
    TensorPattern(f"{_BLOCK}.self_attn.v_proj.weight", ("kv_heads*head_dim", "hidden"), Role.ATTENTION_IN),
    TensorPattern(f"{_BLOCK}.self_attn.o_proj.weight", ("hidden", "heads*head_dim"), Role.ATTENTION_OUT),
)
_HEAD_NORMS: Final = (
    TensorPattern(f"{_BLOCK}.self_attn.q_norm.weight", ("head_dim",), Role.HEAD_NORM),
    TensorPattern(f"{_BLOCK}.self_attn.k_norm.weight", ("head_dim",), Role.HEAD_NORM),
)
_MLP: Final = (
    TensorPattern(f"{_BLOCK}.mlp.gate_proj.weight", ("ffn", "hidden"), Role.FFN_IN),
    TensorPattern(f"{_BLOCK}.mlp.up_proj.weight", ("ffn", "hidden"), Role.FFN_IN),
    TensorPattern(f"{_BLOCK}.mlp.down_proj.weight", ("hidden", "ffn"), Role.FFN_OUT),
)
_MLP_BIASES: Final = (
    TensorPattern(f"{_BLOCK}.mlp.gate_proj.bias", ("ffn",), Role.FFN_IN, ("mlp_bias", True)),
    TensorPattern(f"{_BLOCK}.mlp.up_proj.bias", ("ffn",), Role.FFN_IN, ("mlp_bias", True)),
    TensorPattern(f"{_BLOCK}.mlp.down_proj.bias", ("hidden",), Role.FFN_OUT, ("mlp_bias", True)),
)


def _norm(name: str, role: Role = Role.NORM) -> TensorPattern:
    return TensorPattern(f"{_BLOCK}.{name}.weight", ("hidden",), role)


def _attention_biases(when: tuple[str, bool] | None, output: bool) -> tuple[TensorPattern, ...]:
    biases = tuple(
        TensorPattern(f"{_BLOCK}.self_attn.{name}_proj.bias", (f"{heads}*head_dim",), Role.ATTENTION_IN, when)
        for name, heads in (("q", "heads"), ("k", "kv_heads"), ("v", "kv_heads"))
    )
    last = TensorPattern(f"{_BLOCK}.self_attn.o_proj.bias", ("hidden",), Role.ATTENTION_OUT, when)
    return (*biases, *((last,) if output else ()))


def _table(block: tuple[TensorPattern, ...]) -> tuple[TensorPattern, ...]:
    return (_EMBEDDING, *block, _NORM, _HEAD)


_NORMS: Final = (_norm("input_layernorm"), _norm("post_attention_layernorm"))
_BIASED: Final = ("attention_bias", True)

LLAMA: Final = Architecture(
    name="llama",
    model_class="LlamaForCausalLM",
    config_keys=_KEYS,
    flags={"tie_word_embeddings": False, "attention_bias": False, "mlp_bias": False},
    prefix="model.",
    buffers=_BUFFERS,
    tensors=_table((_NORMS[0], *_ATTENTION, *_attention_biases(_BIASED, True), _NORMS[1], *_MLP, *_MLP_BIASES)),
)

MISTRAL: Final = Architecture(
    name="mistral",
    model_class="MistralForCausalLM",
    config_keys=_KEYS,
    flags={"tie_word_embeddings": False},
    defaults={"kv_heads": 8},
    prefix="model.",
    buffers=_BUFFERS,
    tensors=_table((_NORMS[0], *_ATTENTION, _NORMS[1], *_MLP)),
)

QWEN2: Final = Architecture(
    name="qwen2",
    model_class="Qwen2ForCausalLM",
    config_keys=_KEYS,
    flags={"tie_word_embeddings": False},
    defaults={"kv_heads": 32},
    per_layer=("layer_types",),
    accepts={"use_sliding_window": False},
    prefix="model.",
    buffers=_BUFFERS,
    tensors=_table((_NORMS[0], *_ATTENTION, *_attention_biases(None, False), _NORMS[1], *_MLP)),
)

QWEN3: Final = Architecture(
    name="qwen3",
    model_class="Qwen3ForCausalLM",
    config_keys=_KEYS,
    flags={"tie_word_embeddings": False, "attention_bias": False},
    defaults={"kv_heads": 32, "head_dim": 128},
    per_layer=("layer_types",),
    accepts={"use_sliding_window": False},
    prefix="model.",
    buffers=_BUFFERS,
    tensors=_table(
        (_NORMS[0], *_ATTENTION, *_attention_biases(_BIASED, True), *_HEAD_NORMS, _NORMS[1], *_MLP),
    ),
)

GEMMA3: Final = Architecture(
    name="gemma3_text",
    model_class="Gemma3ForCausalLM",
    config_keys=_KEYS,
    flags={"tie_word_embeddings": True, "attention_bias": False},
    defaults={"kv_heads": 4, "head_dim": 256},
    per_layer=("layer_types",),
    norm_offset=1.0,
    scales_embedding=True,
    accepts={"final_logit_softcapping": None, "attn_logit_softcapping": None, "use_bidirectional_attention": False},
    prefix="model.",
    buffers=_BUFFERS,
    tensors=_table(
        (
            _norm("input_layernorm"),
            *_ATTENTION,
            *_attention_biases(_BIASED, True),
            *_HEAD_NORMS,
            _norm("post_attention_layernorm", Role.BRANCH_NORM),
            _norm("pre_feedforward_layernorm"),
            *_MLP,
            _norm("post_feedforward_layernorm", Role.BRANCH_NORM),
        )
    ),
)
