"""The architectures that colbuild reads from GGUF files, and llama.cpp's names of their tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from colbuild.arch import ARCHITECTURES, Architecture, Tensor
from colbuild.arch.gguf_form import PARTS, GGUFForm

READ: Final[Mapping[str, tuple[Architecture, GGUFForm]]] = {
    table.gguf.name: (table, table.gguf)
    for table in ARCHITECTURES.values()
    if table.gguf is not None and table.gguf.settings is not None
}
"""`general.architecture` -> the architecture, and how its files are read. What a norm adds to its weight, llama.cpp adds before
it stores the weight."""

KNOWN: Final = frozenset(
    name for table in ARCHITECTURES.values() for name in (table.name, table.gguf and table.gguf.name) if name
)
"""What files may call an architecture that colbuild knows, from whatever it is read."""

_WHOLE: Final = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def gguf_name(architecture: Architecture, tensor: Tensor) -> str:
    """Returns llama.cpp's name of a tensor."""
    stem, _, kind = tensor.name.rpartition(".")
    if tensor.layer is None:
        return f"{_WHOLE[stem]}.{kind}"
    return f"blk.{tensor.layer}.{PARTS[architecture.part_of(tensor.name, tensor.layer)]}.{kind}"
