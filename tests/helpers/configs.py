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
