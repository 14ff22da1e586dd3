"""A batch of text: input tokens, targets, and their origin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch

IGNORED: Final = -100
"""A target that nothing is asked of; torch's cross-entropy uses the same number."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Sequences of packed text.

    Attributes:
        tokens: Token ids [rows, sequence]: what the models see.
        targets: Token ids [rows, sequence]: the token after each, or `IGNORED` where that one is of another document.
        windows: Which window of the corpus each row is.
        documents: [rows, sequence], rising along a row by one wherever a document begins; None where the documents of a
            sequence see each other.
        written: Whether the student wrote each row's targets itself; empty where it wrote none.
    """

    tokens: torch.Tensor
    targets: torch.Tensor
    windows: tuple[int, ...]
    documents: torch.Tensor | None = None
    written: tuple[bool, ...] = ()

    def part(self, start: int, stop: int) -> Batch:
        """Some of its rows."""
        rows = slice(start, stop)
        documents = None if self.documents is None else self.documents[rows]
        return Batch(self.tokens[rows], self.targets[rows], self.windows[rows], documents, self.written[rows])

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        documents = None if self.documents is None else self.documents.to(device)
        return Batch(self.tokens.to(device), self.targets.to(device), self.windows, documents, self.written)
