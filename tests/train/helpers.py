"""Tiny models and batches for the training loop, with no file in between."""

from __future__ import annotations

from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from colbuild.spec.models import Recipe

VOCABULARY = 40


def tiny_llama(
    seed: int, *, hidden: int = 32, dtype: torch.dtype = torch.float32, tied: bool = True, **config: Any
) -> LlamaForCausalLM:
    """A random llama of about ten thousand parameters."""
    torch.manual_seed(seed)
    settings = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
        initializer_range=0.1,
        **config,
    )
    model: LlamaForCausalLM = LlamaForCausalLM(settings).to(dtype).eval()
    return model


def text(step: int, *, seed: int = 0, batch: int = 4, sequence: int = 16) -> torch.Tensor:
    """Tokens [batch, sequence + 1] that can be learned: each is the last one plus one or two."""
    generator = torch.Generator().manual_seed(1000 * seed + step)
    start = torch.randint(0, VOCABULARY, (batch, 1), generator=generator)
    steps = torch.randint(1, 3, (batch, sequence), generator=generator).cumsum(dim=1)
    return torch.cat([start, start + steps], dim=1) % VOCABULARY


def recipe(*, steps: int = 20, **changes: Any) -> Recipe:
    """A recipe for batches of `text`."""
    settings = {
        "tokens": steps * 4 * 16,
        "sequence": 16,
        "batch": 4,
        "precision": "fp32",
        "optimizer": {"lr": 3e-3},
    }
    return Recipe.model_validate(settings | changes, strict=False)


def weights_of(model: LlamaForCausalLM) -> dict[str, torch.Tensor]:
    """A copy of a model's weights."""
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether two sets of weights are equal to the last bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
