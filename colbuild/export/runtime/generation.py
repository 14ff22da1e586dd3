"""A generated answer of a package, and its figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from colbuild.units import format_duration


@dataclass
class Generation:
    """An answer on its way. The figures are final once `pieces` has been read to its end.

    Attributes:
        pieces: The answer's text, piece by piece.
        prompt_tokens: Length of the prompt.
        new_tokens: Tokens generated so far, a token that ended the answer not counted.
        prompt_seconds: Time to read the prompt.
        seconds: Time for the steps after it; the first token comes with the prompt.
        stopped: Why it ended: "end" of the answer, "max_tokens", or "context" full; empty until then.
        steps: How many tokens were computed in `seconds`.
        chat: Whether the prompt went through a chat template; else it is text that is continued.
    """

    pieces: Iterator[str]
    prompt_tokens: int
    chat: bool = False
    new_tokens: int = 0
    prompt_seconds: float = 0.0
    seconds: float = 0.0
    stopped: str = ""
    steps: int = 0

    def __iter__(self) -> Iterator[str]:
        """The answer's text, piece by piece."""
        return self.pieces

    @property
    def tokens_per_second(self) -> float:
        """Speed of generating, without reading the prompt; 0 when there was nothing to time."""
        return self.steps / self.seconds if self.seconds else 0.0

    def figures(self) -> dict[str, Any]:
        """All values except the pieces, by name."""
        return {name: getattr(self, name) for name in FIGURES}

    def take(self, figures: Mapping[str, Any]) -> None:
        """Sets figures by name."""
        for name in FIGURES:
            setattr(self, name, figures[name])

    def summary(self) -> str:
        """The figures in one line."""
        parts = [
            f"{self.prompt_tokens:,} prompt tokens in {format_duration(self.prompt_seconds)}",
            f"{self.new_tokens:,} new tokens at {self.tokens_per_second:.1f}/s",
        ]
        endings = {"max_tokens": "stopped at the most tokens allowed", "context": "the package's context is full"}
        return " · ".join([*parts, *(text for reason, text in endings.items() if reason == self.stopped)])


FIGURES: Final = tuple(field.name for field in fields(Generation) if field.name != "pieces")
