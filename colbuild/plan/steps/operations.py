"""The operations and their epochs.

An epoch is an integer raised by hand when an operation's meaning changes, so that results built before are not reused.
They stand here, not in the operations' own files, because planning must not import torch. `tests/ops/test_epochs.py`
compares digests of each operation's sources with a committed table and fails until the author raises the epoch or states
that the meaning is the same.
"""

from __future__ import annotations

from typing import Final

EPOCHS: Final[dict[str, int]] = {
    "source": 3,
    "generate": 2,
    "tokenizer": 3,
    "corpus": 1,
    "order": 1,
    "bridge": 2,
    "align": 1,
    "teach": 1,
    "distill": 2,
    "interpolate": 2,
    "recover": 2,
    "quantise": 2,
    "evaluate": 2,
    "export": 6,
}
