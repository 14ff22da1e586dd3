"""Random but legal llama configurations."""

from __future__ import annotations

import random
from typing import Any

SMOLLM2 = {
    "model_type": "llama",
    "num_hidden_layers": 30,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
}
"""The shape of SmolLM2-135M."""


def random_llama_config(seed: int) -> dict[str, Any]:
    """A small llama config.json: any grouping, head width, biases, tied or not."""
    rng = random.Random(seed)
    kv_heads = rng.choice([1, 2, 3, 4])
    heads = kv_heads * rng.choice([1, 2, 3])
    return {
        "model_type": "llama",
        "num_hidden_layers": rng.randint(1, 5),
        "hidden_size": heads * rng.choice([8, 12, 16]),
        "intermediate_size": rng.randint(8, 96),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": rng.choice([8, 16, 32]),
        "vocab_size": rng.randint(50, 300),
        "tie_word_embeddings": rng.random() < 0.5,
        "attention_bias": rng.random() < 0.5,
        "mlp_bias": rng.random() < 0.5,
    }


def random_config(name: str, seed: int) -> dict[str, Any]:
    """A small config.json of an architecture: any grouping, head width, biases, tied or not, where it knows these."""
    rng = random.Random(f"{name}{seed}")
    heads = rng.choice([1, 2, 3, 4])
    head_dim = rng.choice([8, 16, 32])
    layers, ffn, vocab, tied = rng.randint(1, 5), rng.randint(8, 96), rng.randint(50, 300), rng.random() < 0.5
    config = {"model_type": name, "vocab_size": vocab, "tie_word_embeddings": tied}
    if name == "gpt2":
        config |= {"n_layer": layers, "n_embd": heads * head_dim, "n_head": heads, "n_positions": rng.randint(32, 64)}
        return config | {"n_inner": rng.choice([None, ffn]), "bos_token_id": 1, "eos_token_id": 1}
    config |= {"num_hidden_layers": layers, "intermediate_size": ffn, "attention_bias": rng.random() < 0.5}
    if name == "gpt_neox":
        return config | {"hidden_size": heads * head_dim, "num_attention_heads": heads}
    grouped = heads * rng.choice([1, 2, 3])
    config |= {"num_attention_heads": grouped, "num_key_value_heads": heads, "head_dim": head_dim}
    config |= {"hidden_size": grouped * rng.choice([8, 12, 16]), "max_position_embeddings": 64, "pad_token_id": 0}
    if name in ("mistral", "qwen2"):
        del config["attention_bias"]
    if name == "mistral":
        config["sliding_window"] = None
    if name == "granite":
        config |= {
            "embedding_multiplier": 6.0,
            "attention_multiplier": 0.2,
            "residual_multiplier": 0.4,
            "logits_scaling": 3.0,
        }
    if name == "olmo2":
        config |= {"bos_token_id": 1, "eos_token_id": 1}
    if name in ("qwen2", "qwen3"):
        config["layer_types"] = ["full_attention"] * layers
    if name == "gemma3_text":
        config["layer_types"] = [rng.choice(["full_attention", "sliding_attention"]) for _ in range(layers)]
        config |= {"sliding_window": 8, "query_pre_attn_scalar": head_dim}
    return config
