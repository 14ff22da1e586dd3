"""The size of a package's tokenizer.json, computed from a source's files, for the size of packages in a plan.

It is written without spaces (see `colbuild/export/package/companions.py`), which are half of most such files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from colbuild.arch.files.gguf_header import ArrayValue, gguf_parts, read_header
from colbuild.arch.files.model_files import TOKENIZER
from colbuild.bounds import JSON_BYTES
from colbuild.documents import MalformedError, read_json_file, read_regular

_ENTRY: Final = 4
"""Bytes of an entry of the vocabulary beside its text and its id: quotes, colon and comma."""
_MERGE: Final = 8
"""Bytes of a merge beside the two texts: brackets, quotes and commas, less the space that is between them."""
_BESIDE: Final = 65_536
"""Bytes of what is neither vocabulary nor merges: special tokens, of which some models have hundreds, and the pipeline."""
_ESCAPES: Final = 1.01
"""Quotes, backslashes and the like take two bytes."""


def tokenizer_bytes(raw: Path) -> int | None:
    """Bytes of the tokenizer.json that a package of this source has at most; None if its files do not tell.

    Args:
        raw: A model's folder, a tokenizer's folder, a tokenizer.json or a GGUF file.

    Raises:
        BuildError: A GGUF file is damaged.
        OSError: A file cannot be read.
    """
    path = raw / TOKENIZER if raw.is_dir() else raw
    if path.suffix == ".json" and path.is_file():
        return _written(path)
    older = [raw / name for name in ("vocab.json", "merges.txt")]
    if all(one.is_file() for one in older):
        vocabulary = _written(older[0])
        merges = read_regular(older[1], JSON_BYTES)
        return None if vocabulary is None else vocabulary + len(merges) + _MERGE * merges.count(b"\n") + _BESIDE
    parts = gguf_parts(raw)
    return _of_gguf(parts) if parts else None


def _written(path: Path) -> int | None:
    try:
        content = read_json_file(path)
        return len(json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode())
    except MalformedError:
        return None  # the step that reads it tells why


def _of_gguf(parts: tuple[Path, ...]) -> int | None:
    """Of a tokenizer of bytes, which has its merges in the file; those of another kind are worked out of its pieces."""
    facts = read_header(parts).metadata
    tokens, merges = (facts.get(f"tokenizer.ggml.{key}") for key in ("tokens", "merges"))
    if not isinstance(tokens, ArrayValue) or not isinstance(merges, ArrayValue):
        return None
    entry = _ENTRY + len(str(tokens.length))
    texts = sum(array.bytes - 8 * array.length for array in (tokens, merges))
    return round(texts * _ESCAPES) + entry * tokens.length + _MERGE * merges.length + _BESIDE
