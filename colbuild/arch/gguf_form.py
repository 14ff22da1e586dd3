"""llama.cpp's names of an architecture's tensors, and the settings in its metadata."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol


class Facts(Protocol):
    """The metadata of one architecture, its name left out of the keys."""

    def whole(self, key: str, default: int | None = None) -> int:
        """A whole number. Raises BuildError."""

    def real(self, key: str, default: float | None = None) -> float:
        """A number. Raises BuildError."""

    def given(self, key: str) -> Any:
        """Whatever there is; None if there is nothing."""

    def has(self, tensor: str) -> bool:
        """Returns whether the file has a tensor."""


Settings = Callable[[Facts, Mapping[str, Any]], Mapping[str, Any]]
"""From a file's facts, and what config.json says so far, to what else it says."""


@dataclass(frozen=True)
class GGUFForm:
    """One kind of GGUF file.

    Attributes:
        name: `general.architecture` in the file.
        settings: What config.json says beyond what all architectures have in common; None where colbuild does not read such
            files.
        interleaved: Parts of a block whose rows are interleaved: llama.cpp rotates neighbouring pairs of a head's channels
            there, transformers channel i with i + head_dim/2.
        tokenizer_of: The architecture as whose file transformers reads the tokenizer, where it reads none of this one's files.
            Tokenizers do not depend on the architecture: any that transformers knows will do.
    """

    name: str
    settings: Settings | None
    interleaved: tuple[str, ...] = ()
    tokenizer_of: str | None = None


PARTS: Final[Mapping[str, str]] = {
    "attention_norm": "attn_norm",
    "query": "attn_q",
    "key": "attn_k",
    "value": "attn_v",
    "output": "attn_output",
    "query_norm": "attn_q_norm",
    "key_norm": "attn_k_norm",
    "attention_end": "post_attention_norm",
    "ffn_norm": "ffn_norm",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
    "ffn_end": "post_ffw_norm",
}
"""Part of a block (`Architecture.block`) -> what llama.cpp calls it."""
