"""Random checkpoints of any shape and architecture, and what transformers itself computes with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from colbuild.arch import ARCHITECTURES, NORMS, Role, Shape, norm_sites, read_structure, tensors, wide_norms
from colbuild.weights.files.checkpoint import Checkpoint
from colbuild.weights.prefix.importance import Importance
from colbuild.weights.prefix.ordering import order
from tests.helpers.configs import random_config

GQA = {
    "model_type": "llama",
    "num_hidden_layers": 4,
    "hidden_size": 48,
    "intermediate_size": 40,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "head_dim": 8,
    "vocab_size": 70,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
    "attention_bias": True,
    "mlp_bias": True,
}
"""Grouped heads, biases, tied embeddings: everything that can go wrong at once."""


def config_of(name: str) -> dict[str, Any]:
    """At least two kv heads and three layers, so that every axis can shrink."""
    config = random_config(name, 0)
    table = ARCHITECTURES[name]
    heads, head_dim = 4, 8
    config |= {table.config_keys["layers"]: 4, table.config_keys["ffn"]: 40, table.config_keys["heads"]: heads}
    config[table.config_keys["hidden"]] = heads * head_dim
    if not table.ties_widths:
        config |= {"num_key_value_heads": 2, "head_dim": head_dim}
    if "layer_types" in config:
        kinds = ["full_attention", "sliding_attention"] if name == "gemma3_text" else ["full_attention"]
        config["layer_types"] = [kinds[layer % len(kinds)] for layer in range(4)]
    return config


def smaller_shape(checkpoint: Checkpoint, **lengths: int) -> Shape:
    """A shape inside the checkpoint's; heads follow `kv_heads`, and the hidden width heads where these are tied."""
    shape = replace(checkpoint.structure.shape, **lengths)
    if checkpoint.structure.architecture.ties_widths and "kv_heads" in lengths:
        return replace(shape, heads=shape.kv_heads, hidden=shape.kv_heads * shape.head_dim)
    if "kv_heads" in lengths:
        return replace(shape, heads=shape.kv_heads * 2)
    return shape


def random_checkpoint(config: Mapping[str, Any], seed: int = 0, dtype: torch.dtype = torch.float32) -> Checkpoint:
    """Weights of a size at which logits differ clearly; norms and biases are random too, so that their order shows."""
    generator = torch.Generator().manual_seed(seed)
    structure = read_structure(config)
    offset = structure.architecture.norm_offset
    weights = {}
    for tensor in tensors(structure):
        noise = torch.randn(tensor.lengths, generator=generator)
        weights[tensor.name] = (
            1.0 - offset + 0.3 * noise if tensor.role in (*NORMS, Role.HEAD_NORM) else 0.2 * noise
        ).to(dtype)
    return Checkpoint(dict(config), structure, weights)


def random_importance(checkpoint: Checkpoint, seed: int = 0) -> Importance:
    """Scores in an order of their own."""
    generator = torch.Generator().manual_seed(1000 + seed)
    shape = checkpoint.structure.shape

    def scores(*lengths: int) -> torch.Tensor:
        return torch.rand(*lengths, generator=generator) + 0.05

    return Importance(
        ffn=scores(shape.layers, shape.ffn),
        heads=scores(shape.layers, shape.heads),
        hidden=scores(shape.hidden),
        layers=scores(shape.layers),
        residual=scores(len(norm_sites(checkpoint.structure)), shape.hidden),
        groups=scores(wide, shape.kv_heads) if (wide := len(wide_norms(checkpoint.structure))) else None,
    )


def random_ordered(config: Mapping[str, Any] = GQA, seed: int = 0, dtype: torch.dtype = torch.float32) -> Checkpoint:
    """A random checkpoint, ordered by random scores."""
    checkpoint = random_checkpoint(config, seed, dtype)
    return order(checkpoint, random_importance(checkpoint, seed))


def shaped(checkpoint: Checkpoint, **lengths: int) -> Shape:
    """The checkpoint's shape with some lengths replaced."""
    return replace(checkpoint.structure.shape, **lengths)


def retrained(checkpoint: Checkpoint, seed: int, amount: float = 0.1) -> Checkpoint:
    """The checkpoint as training would leave it: every weight moved, the lineage kept."""
    generator = torch.Generator().manual_seed(seed)
    moved = {
        name: tensor + amount * torch.randn(tensor.shape, generator=generator).to(tensor.dtype)
        for name, tensor in checkpoint.tensors.items()
    }
    return replace(checkpoint, tensors=moved)


def reference_model(checkpoint: Checkpoint, weights: Mapping[str, torch.Tensor] | None = None) -> PreTrainedModel:
    """The model built by transformers alone, in float32; loading is strict but for the tied head."""
    model: PreTrainedModel = AutoModelForCausalLM.from_config(AutoConfig.for_model(**checkpoint.config)).eval()
    found = model.load_state_dict(weights or checkpoint.tensors, strict=False)
    heads = [pattern.name for pattern in checkpoint.structure.architecture.tensors if pattern.role is Role.HEAD]
    tied = heads if model.config.tie_word_embeddings else []
    assert found.unexpected_keys == []
    assert found.missing_keys in ([], tied)
    return model


def logits(checkpoint: Checkpoint, weights: Mapping[str, torch.Tensor] | None = None) -> torch.Tensor:
    """Logits [2, 16, vocabulary] on fixed random tokens, as transformers computes them."""
    tokens = torch.randint(0, checkpoint.structure.shape.vocab, (2, 16), generator=torch.Generator().manual_seed(99))
    with torch.no_grad():
        found: torch.Tensor = reference_model(checkpoint, weights)(input_ids=tokens).logits
    return found


def silenced_layer(checkpoint: Checkpoint, layer: int) -> Checkpoint:
    """The checkpoint with a layer that writes nothing into the residual stream."""
    outputs = {Role.ATTENTION_OUT, Role.FFN_OUT}
    silent = [one.name for one in tensors(checkpoint.structure) if one.layer == layer and one.role in outputs]
    weights = {
        name: torch.zeros_like(weight) if name in silent else weight for name, weight in checkpoint.tensors.items()
    }
    return replace(checkpoint, tensors=weights)
