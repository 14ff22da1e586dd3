"""Architectures of GPT's kind: LayerNorm, biases, one projection for queries, keys and values, a plain feed-forward part."""

from __future__ import annotations

from typing import Final

from colbuild.arch.architecture import Architecture, Role, TensorPattern

_GPT2: Final = "transformer.h.{layer}"
_NEOX: Final = "gpt_neox.layers.{layer}"


def _layer_norm(name: str) -> tuple[TensorPattern, ...]:
    return (
        TensorPattern(f"{name}.weight", ("hidden",), Role.NORM),
        TensorPattern(f"{name}.bias", ("hidden",), Role.NORM_BIAS),
    )


GPT2: Final = Architecture(
    name="gpt2",
    model_class="GPT2LMHeadModel",
    config_keys={"layers": "n_layer", "hidden": "n_embd", "ffn": "n_inner", "heads": "n_head", "vocab": "vocab_size"},
    flags={"tie_word_embeddings": True},
    fixed={"positions": "n_positions"},
    ffn_times=4,
    accepts={"add_cross_attention": False, "scale_attn_by_inverse_layer_idx": False, "scale_attn_weights": True},
    prefix="transformer.",
    buffers=(".attn.bias", ".attn.masked_bias"),
    # Its projections are stored [in, out], the other way round than everyone else's.
    tensors=(
        TensorPattern("transformer.wte.weight", ("vocab", "hidden"), Role.EMBEDDING),
        TensorPattern("transformer.wpe.weight", ("positions", "hidden"), Role.POSITION),
        *_layer_norm(f"{_GPT2}.ln_1"),
        TensorPattern(f"{_GPT2}.attn.c_attn.weight", ("hidden", "3*heads*head_dim"), Role.ATTENTION_IN),
        TensorPattern(f"{_GPT2}.attn.c_attn.bias", ("3*heads*head_dim",), Role.ATTENTION_IN),
        TensorPattern(f"{_GPT2}.attn.c_proj.weight", ("heads*head_dim", "hidden"), Role.ATTENTION_OUT),
        TensorPattern(f"{_GPT2}.attn.c_proj.bias", ("hidden",), Role.ATTENTION_OUT),
        *_layer_norm(f"{_GPT2}.ln_2"),
        TensorPattern(f"{_GPT2}.mlp.c_fc.weight", ("hidden", "ffn"), Role.FFN_IN),
        TensorPattern(f"{_GPT2}.mlp.c_fc.bias", ("ffn",), Role.FFN_IN),
        TensorPattern(f"{_GPT2}.mlp.c_proj.weight", ("ffn", "hidden"), Role.FFN_OUT),
        TensorPattern(f"{_GPT2}.mlp.c_proj.bias", ("hidden",), Role.FFN_OUT),
        *_layer_norm("transformer.ln_f"),
        TensorPattern("lm_head.weight", ("vocab", "hidden"), Role.HEAD, ("tie_word_embeddings", False)),
    ),
)

_BIASED: Final = ("attention_bias", True)

GPT_NEOX: Final = Architecture(
    name="gpt_neox",
    model_class="GPTNeoXForCausalLM",
    config_keys={
        "layers": "num_hidden_layers",
        "hidden": "hidden_size",
        "ffn": "intermediate_size",
        "heads": "num_attention_heads",
        "vocab": "vocab_size",
    },
    flags={"tie_word_embeddings": False, "attention_bias": True},
    prefix="gpt_neox.",
    stored_as={"lm_head.weight": "embed_out.weight"},
    buffers=(".attention.bias", ".attention.masked_bias", ".attention.rotary_emb.inv_freq"),
    tensors=(
        TensorPattern("gpt_neox.embed_in.weight", ("vocab", "hidden"), Role.EMBEDDING),
        *_layer_norm(f"{_NEOX}.input_layernorm"),
        *_layer_norm(f"{_NEOX}.post_attention_layernorm"),
        TensorPattern(f"{_NEOX}.attention.query_key_value.weight", ("heads*3*head_dim", "hidden"), Role.ATTENTION_IN),
        TensorPattern(f"{_NEOX}.attention.query_key_value.bias", ("heads*3*head_dim",), Role.ATTENTION_IN, _BIASED),
        TensorPattern(f"{_NEOX}.attention.dense.weight", ("hidden", "heads*head_dim"), Role.ATTENTION_OUT),
        TensorPattern(f"{_NEOX}.attention.dense.bias", ("hidden",), Role.ATTENTION_OUT, _BIASED),
        TensorPattern(f"{_NEOX}.mlp.dense_h_to_4h.weight", ("ffn", "hidden"), Role.FFN_IN),
        TensorPattern(f"{_NEOX}.mlp.dense_h_to_4h.bias", ("ffn",), Role.FFN_IN),
        TensorPattern(f"{_NEOX}.mlp.dense_4h_to_h.weight", ("hidden", "ffn"), Role.FFN_OUT),
        TensorPattern(f"{_NEOX}.mlp.dense_4h_to_h.bias", ("hidden",), Role.FFN_OUT),
        *_layer_norm("gpt_neox.final_layer_norm"),
        TensorPattern("lm_head.weight", ("vocab", "hidden"), Role.HEAD, ("tie_word_embeddings", False)),
    ),
)
