"""The names of the files that a split GGUF model is made of."""

from __future__ import annotations

import re
from typing import Final

# As llama.cpp's `gguf-split` and converter name them.
_SPLIT: Final = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$", re.DOTALL)


def split_names(name: str) -> tuple[str, ...]:
    """The files that a split GGUF file is made of, of which the name or path is one; empty if it names no such file."""
    found = _SPLIT.match(name)
    count = int(found["count"]) if found else 0
    if found is None or count < 2 or not 1 <= int(found["number"]) <= count:
        return ()
    return tuple(f"{found['stem']}-{number:05}-of-{count:05}.gguf" for number in range(1, count + 1))
