"""Kinds of values that several architectures' settings have, and the settings that every architecture has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from colbuild.arch.rotary import ROTARY_KEYS
from colbuild.arch.value_kinds import ANYTHING, FLAG, ID, IDS, SPREAD, Kind, choice, decimal, whole
from colbuild.bounds import LAYERS as _MOST_LAYERS
from colbuild.bounds import ROWS as _MOST_ROWS

LAYERS: Final = whole(1, _MOST_LAYERS)
HEADS: Final = whole(1, 1 << 16)
WIDTH: Final = whole(1, 1 << 20)
ROWS: Final = whole(1, _MOST_ROWS)
POSITIONS: Final = whole(1, 1 << 24)
WINDOW: Final = whole(1, 1 << 31)
EPSILON: Final = decimal(1.0)
THETA: Final = ROTARY_KEYS["rope_theta"]
ACTIVATION: Final = choice(
    "gelu", "gelu_fast", "gelu_new", "gelu_pytorch_tanh", "linear", "mish", "quick_gelu", "relu", "relu2", "sigmoid",
    "silu", "swish", "tanh",
)  # fmt: skip

EVERY: Final[Mapping[str, Kind]] = {
    "model_type": ANYTHING,
    "vocab_size": ROWS,
    "tie_word_embeddings": FLAG,
    "initializer_range": SPREAD,
    "bos_token_id": ID,
    "eos_token_id": IDS,
    "pad_token_id": ID,
}
