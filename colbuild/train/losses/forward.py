"""A model's final hidden states and its head, so that logits are computed in chunks."""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel

from colbuild.arch import ARCHITECTURES
from colbuild.train.losses.attention import apart


def final_hidden(model: PreTrainedModel, tokens: torch.Tensor, documents: torch.Tensor | None = None) -> torch.Tensor:
    """Returns the input of a model's head, divided by the model's divisor of logits, if any.

    Args:
        model: The model.
        tokens: Token ids [rows, sequence].
        documents: [rows, sequence], rising by one wherever a document begins, where these do not see each other.

    Returns:
        [rows * sequence, hidden].
    """
    mask, positions = (None, None) if documents is None else apart(documents)
    hidden: torch.Tensor = model.base_model(
        input_ids=tokens, attention_mask=mask, position_ids=positions, use_cache=False
    ).last_hidden_state
    scalar = ARCHITECTURES[model.config.model_type].scalars.get("logits")
    hidden = hidden.flatten(0, 1)
    return hidden if scalar is None else hidden / getattr(model.config, scalar.key)


def head_weight(model: PreTrainedModel) -> torch.Tensor:
    """A model's head [vocabulary, hidden]; the embedding itself where they are tied."""
    weight: torch.Tensor = model.get_output_embeddings().weight
    return weight


def owner_of(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The submodule that holds a tensor, and what it is called there."""
    path, _, leaf = name.rpartition(".")
    return module.get_submodule(path), leaf
