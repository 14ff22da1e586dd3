"""Tokenizers that put a token in front of every text, as those of llama and gemma do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

BOS = "!"
"""A token of every byte-level vocabulary, so that models need no further row."""


def template(token: str, index: int) -> dict[str, Any]:
    """The post-processor that puts a token in front of a text, as tokenizer.json has it."""
    front = {"SpecialToken": {"id": token, "type_id": 0}}
    one, two = ({"Sequence": {"id": name, "type_id": kind}} for name, kind in (("A", 0), ("B", 1)))
    return {
        "type": "TemplateProcessing",
        "single": [front, one],
        "pair": [front, one, {"SpecialToken": {"id": token, "type_id": 1}}, two],
        "special_tokens": {token: {"id": token, "ids": [index], "tokens": [token]}},
    }


def change_tokenizer(folder: Path, settings: dict[str, Any] | None = None, **content: Any) -> Path:
    """Changes keys of a folder's tokenizer.json, and of its tokenizer_config.json."""
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | content))
    if settings is not None:
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return folder


def beginning_with(folder: Path, copy: Path, token: str = BOS) -> Path:
    """A copy of a model or tokenizer folder whose texts begin with a token."""
    shutil.copytree(folder, copy, dirs_exist_ok=True)
    vocabulary = json.loads((copy / "tokenizer.json").read_text())
    index = vocabulary["model"]["vocab"].get(token)
    if index is None:
        index = next(added["id"] for added in vocabulary["added_tokens"] if added["content"] == token)
    return change_tokenizer(copy, {"bos_token": token}, post_processor=template(token, index))
