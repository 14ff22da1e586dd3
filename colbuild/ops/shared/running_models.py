"""Loads checkpoints as transformers models, and the calibration tokens of steps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import torch
from accelerate import init_empty_weights
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from colbuild.errors import BuildError
from colbuild.plan.workload.at_once import WINDOW
from colbuild.train.corpus.packing import PackedCorpus, open_corpus
from colbuild.train.corpus.text_beginning import asked
from colbuild.train.corpus.text_windows import (
    calibration_windows,
    choice_windows,
    window_count,
    windows_before_choice,
)
from colbuild.train.losses.attention import use_blocked_attention
from colbuild.train.losses.forward import owner_of
from colbuild.weights.files.checkpoint import Checkpoint
from colbuild.weights.files.transformers_config import transformers_config

_LEAST_WINDOWS: Final = 8
_SHORTEST: Final = 64


def build_model(
    config: Mapping[str, Any], weights: Mapping[str, torch.Tensor], *, dtype: torch.dtype
) -> PreTrainedModel:
    """A transformers model with a copy of these weights, in evaluation mode.

    Raises:
        BuildError: The weights are not those of the configuration.
    """
    settings = transformers_config(config)
    # Only the parameters are left out: what is stored in no file, such as rotary frequencies, is computed here.
    with init_empty_weights(include_buffers=False):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(settings, dtype=dtype)
    model.tie_weights()
    expected = {name for name, _ in model.named_parameters()}
    if expected != set(weights):
        odd = sorted(expected ^ set(weights))
        raise BuildError(f"the weights do not match the model's configuration: {', '.join(odd[:4])}")
    for name, _ in list(model.named_parameters()):
        owner, leaf = owner_of(model, name)
        setattr(owner, leaf, nn.Parameter(weights[name].to(dtype, copy=True)))
    model.tie_weights()
    return model.eval()


def model_of(checkpoint: Checkpoint, dtype: torch.dtype) -> PreTrainedModel:
    """A checkpoint as a model."""
    return build_model(checkpoint.config, checkpoint.tensors, dtype=dtype)


def running_model(checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """A checkpoint as a model that runs on a device, with the attention that is fastest there."""
    model: PreTrainedModel = model_of(checkpoint, dtype).to(device)
    use_blocked_attention(model)
    return model


class Configured(Protocol):
    """A model, or as much of one as says what it can read."""

    @property
    def config(self) -> Any:
        """Its configuration."""


def calibration(corpus: Path, split: str, tokens: int, model: Configured) -> torch.Tensor:
    """Windows [windows, length + 1] for about `tokens` predictions.

    Raises:
        BuildError: The corpus has fewer tokens than are asked for, or was made with another tokenizer.
    """
    packed, length = _open(corpus, split, model)
    if window_count(packed, length) < tokens // length:
        raise BuildError(
            f"the {split} split of the corpus has {packed.tokens:,} tokens, too few to calibrate on {tokens:,}",
            hint="give more text (a higher 'limit'), or ask for fewer 'tokens' in 'order' and 'interpolate', or a smaller "
            "'calibration' in a profile",
        )
    return calibration_windows(packed, tokens, length)


def choice_text(corpus: Path, split: str, tokens: int, model: Configured) -> torch.Tensor:
    """Windows [windows, length + 1] by which mixtures are chosen, see `choice_windows`: as many as there are.

    Raises:
        BuildError: The corpus was made with another tokenizer.
    """
    packed, length = _open_to_choose(corpus, split, model)
    return choice_windows(packed, tokens, length)


def text_before_choice(corpus: Path, split: str, tokens: int, wanted: int, model: Configured) -> torch.Tensor:
    """Windows [windows, length + 1] for at most about `wanted` predictions, none of which `choice_text` has.

    Raises:
        BuildError: The corpus was made with another tokenizer.
    """
    packed, length = _open_to_choose(corpus, split, model)
    return windows_before_choice(packed, tokens, length, wanted)


def heldout_windows(corpus: Path, split: str, tokens: int, model: Configured) -> torch.Tensor:
    """Windows [windows, length + 1] for at most about `tokens` predictions: as many as there are.

    Raises:
        BuildError: The corpus was made with another tokenizer.
    """
    packed, length = _open(corpus, split, model)
    return calibration_windows(packed, tokens, length)


def asked_of(corpus: Path, split: str, windows: torch.Tensor) -> torch.Tensor:
    """The targets [windows, length] of windows [windows, length + 1] of a corpus, `IGNORED` where nothing is asked.

    What the tokenizer puts in front of texts is no target, nor is the first token of a window that was cut inside a document.
    """
    packed = open_corpus(corpus, split)
    return asked(windows, packed.begin, packed.separator)


def _open(corpus: Path, split: str, model: Configured) -> tuple[PackedCorpus, int]:
    """A corpus in the model's tokens, and how long its windows are."""
    packed = open_corpus(corpus, split)
    check_vocabulary(packed.vocabulary, model)
    return packed, min(WINDOW, model.config.max_position_embeddings, max(1, packed.tokens - 1))


def _open_to_choose(corpus: Path, split: str, model: Configured) -> tuple[PackedCorpus, int]:
    """The same; of little text the windows are shorter, so that its end is not lost to a window that does not fit."""
    packed, length = _open(corpus, split, model)
    return packed, min(length, max(_SHORTEST, (packed.tokens - 1) // _LEAST_WINDOWS))


def check_vocabulary(vocabulary: int, model: Configured) -> None:
    """Raises BuildError if token ids would lie outside the model's embedding."""
    if vocabulary > model.config.vocab_size:
        raise BuildError(
            f"the tokenizer has {vocabulary:,} tokens, the model's embedding has {model.config.vocab_size:,}",
            hint="use the tokenizer of the same model as the weights",
        )


def check_text(vocabulary: int, sequence: int, model: PreTrainedModel, called: str) -> None:
    """Raises BuildError if a model cannot read sequences of a text.

    Args:
        vocabulary: One more than the text's largest token id.
        sequence: Tokens in a sequence.
        model: The model.
        called: What it is to the user: "model", "teacher".
    """
    positions = int(model.config.max_position_embeddings)
    if sequence > positions:
        raise BuildError(
            f"the recipe's sequence has {sequence} tokens, the {called} only {positions} positions",
            hint=f"set sequence to at most {positions} in the recipe",
        )
    check_vocabulary(vocabulary, model)
