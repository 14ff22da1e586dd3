"""The llama architecture: RMSNorm, rotary positions, grouped-query attention, SwiGLU."""

from __future__ import annotations

from colbuild.arch.architecture import Architecture, Role, TensorPattern

_BLOCK = "model.layers.{layer}"

LLAMA = Architecture(
    name="llama",
    model_class="LlamaForCausalLM",
    config_keys={
        "layers": "num_hidden_layers",
        "hidden": "hidden_size",
        "ffn": "intermediate_size",
        "heads": "num_attention_heads",
        "kv_heads": "num_key_value_heads",
        "head_dim": "head_dim",
        "vocab": "vocab_size",
    },
    flags={"tie_word_embeddings": False, "attention_bias": False, "mlp_bias": False},
    tensors=(
        TensorPattern("model.embed_tokens.weight", ("vocab", "hidden"), Role.EMBEDDING),
        TensorPattern(f"{_BLOCK}.input_layernorm.weight", ("hidden",), Role.NORM),
        TensorPattern(f"{_BLOCK}.self_attn.q_proj.weight", ("heads*head_dim", "hidden"), Role.ATTENTION_IN),
        TensorPattern(f"{_BLOCK}.self_attn.k_proj.weight", ("kv_heads*head_dim", "hidden"), Role.ATTENTION_IN),
        TensorPattern(f"{_BLOCK}.self_attn.v_proj.weight", ("kv_heads*head_dim", "hidden"), Role.ATTENTION_IN),
        TensorPattern(f"{_BLOCK}.self_attn.o_proj.weight", ("hidden", "heads*head_dim"), Role.ATTENTION_OUT),
        TensorPattern(
            f"{_BLOCK}.self_attn.q_proj.bias", ("heads*head_dim",), Role.ATTENTION_IN, ("attention_bias", True)
        ),
        TensorPattern(
            f"{_BLOCK}.self_attn.k_proj.bias", ("kv_heads*head_dim",), Role.ATTENTION_IN, ("attention_bias", True)
        ),
        TensorPattern(
            f"{_BLOCK}.self_attn.v_proj.bias", ("kv_heads*head_dim",), Role.ATTENTION_IN, ("attention_bias", True)
        ),
        TensorPattern(f"{_BLOCK}.self_attn.o_proj.bias", ("hidden",), Role.ATTENTION_OUT, ("attention_bias", True)),
        TensorPattern(f"{_BLOCK}.post_attention_layernorm.weight", ("hidden",), Role.NORM),
        TensorPattern(f"{_BLOCK}.mlp.gate_proj.weight", ("ffn", "hidden"), Role.FFN_IN),
        TensorPattern(f"{_BLOCK}.mlp.up_proj.weight", ("ffn", "hidden"), Role.FFN_IN),
        TensorPattern(f"{_BLOCK}.mlp.down_proj.weight", ("hidden", "ffn"), Role.FFN_OUT),
        TensorPattern(f"{_BLOCK}.mlp.gate_proj.bias", ("ffn",), Role.FFN_IN, ("mlp_bias", True)),
        TensorPattern(f"{_BLOCK}.mlp.up_proj.bias", ("ffn",), Role.FFN_IN, ("mlp_bias", True)),
        TensorPattern(f"{_BLOCK}.mlp.down_proj.bias", ("hidden",), Role.FFN_OUT, ("mlp_bias", True)),
        TensorPattern("model.norm.weight", ("hidden",), Role.NORM),
        TensorPattern("lm_head.weight", ("vocab", "hidden"), Role.HEAD, ("tie_word_embeddings", False)),
    ),
)
