"""Makes a source's tokenizer match its model: drops tokens without a row, resets truncation and padding.

Published models have added tokens beyond their embedding: gemma-3's `<image_soft_token>`, a `[PAD]` that a training script
added. Such a token is dropped from every file of the tokenizer, and listed in tokenizer_config.json, so that a text which
spells it is refused rather than read as other tokens than the tokenizer's author meant.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final

from colbuild.arch.files.json_file import read_object
from colbuild.arch.files.model_files import SETTINGS, TOKENIZER
from colbuild.arch.files.tokenizer_file import DROPPED, load_tokenizer, without_orders
from colbuild.arch.files.vocabulary import highest_id, ids_inside
from colbuild.errors import BuildError
from colbuild.weights.files.checkpoint import GENERATION, write_json

_NAMING: Final = (SETTINGS, "special_tokens_map.json", "added_tokens.json")
"""Files beside tokenizer.json that name tokens."""


def fit_tokenizer(output: Path, rows: int, remark: Callable[[str], None]) -> None:
    """Changes the tokenizer that was written to a folder where it does not fit the model.

    Files that already fit stay as they are, byte for byte.

    Args:
        output: The folder.
        rows: Rows of the model's embedding.
        remark: Told what was changed.

    Raises:
        BuildError: A file is not readable, or ids of the vocabulary itself have no row, or every text would begin or end with
            a dropped token.
    """
    before = read_object(output / TOKENIZER)
    content = without_orders(before)
    if content != before:
        remark(f"{TOKENIZER} has settings that truncate or pad texts; they are reset, as in transformers")
    dropped = _beyond(content, rows)
    if dropped:
        content = _without(content, dropped, rows)
        names = ", ".join(f"'{name}'" for name in dropped[:4]) + (" …" if dropped[4:] else "")
        remark(
            f"the embedding has {rows:,} rows, too few for the added tokens {names}: they are dropped from the tokenizer"
        )
    highest = highest_id(content)
    if highest >= rows:
        raise BuildError(
            f"the tokenizer has the id {highest}, but the model's embedding has {rows} rows",
            hint="use the tokenizer of the same model as the weights",
        )
    if content != before:
        text = json.dumps(content, indent=2, ensure_ascii=False)
        (output / TOKENIZER).write_text(text, encoding="utf-8")
        load_tokenizer(output / TOKENIZER)
    if dropped:
        _unname(output, dropped)
    fit_generation(output, rows, remark)


def reset_orders(path: Path) -> None:
    """Removes from a tokenizer.json what it says of cutting and padding texts; one without stays as it is."""
    before = read_object(path)
    content = without_orders(before)
    if content != before:
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")


def _beyond(content: Mapping[str, Any], rows: int) -> list[str]:
    """The added tokens without a row."""
    found = []
    for token in content.get("added_tokens") or ():
        if not isinstance(token, dict) or not isinstance(token.get("id"), int):
            raise BuildError(f"{TOKENIZER} is not a tokenizer: an added token has no id")
        if token["id"] >= rows:
            found.append(str(token.get("content")))
    return found


def _without(content: Mapping[str, Any], dropped: Collection[str], rows: int) -> dict[str, Any]:
    """The content of a tokenizer.json without some added tokens; some files list these in the vocabulary too."""
    special = (content.get("post_processor") or {}).get("special_tokens")
    for name in special if isinstance(special, dict) else ():
        if name in dropped:
            raise BuildError(
                f"the tokenizer puts '{name}' around every text, and the model's embedding has no row for it",
                hint="use the tokenizer of the same model as the weights",
            )
    kept = {**content, "added_tokens": [one for one in content["added_tokens"] if one["content"] not in dropped]}
    vocabulary = content.get("model", {}).get("vocab")
    if isinstance(vocabulary, dict) and not vocabulary.keys().isdisjoint(dropped):
        smaller = {piece: at for piece, at in vocabulary.items() if piece not in dropped or at < rows}
        kept["model"] = {**content["model"], "vocab": smaller}
    if isinstance(vocabulary, list) and all(piece[0] in dropped for piece in vocabulary[rows:]):
        kept["model"] = {**content["model"], "vocab": vocabulary[:rows]}
    return kept


def _unname(output: Path, dropped: Collection[str]) -> None:
    """Removes what names a dropped token from the files beside tokenizer.json."""
    for name in _NAMING:
        path = output / name
        if path.is_file():
            write_json(path, _pruned(read_object(path), frozenset(dropped)))
    settings = read_object(output / SETTINGS) if (output / SETTINGS).is_file() else {}
    write_json(output / SETTINGS, {**settings, DROPPED: sorted(dropped)})


def _pruned(value: Any, dropped: Collection[str]) -> Any:
    """JSON without the entries that are, or are about, one of some tokens."""
    if isinstance(value, dict):
        return {
            key: _pruned(entry, dropped)
            for key, entry in value.items()
            if key not in dropped and not _is_token(entry, dropped)
        }
    if isinstance(value, list):
        return [_pruned(entry, dropped) for entry in value if not _is_token(entry, dropped)]
    return value


def _is_token(value: Any, dropped: Collection[str]) -> bool:
    found = value.get("content") if isinstance(value, dict) else value
    return isinstance(found, str) and found in dropped


def fit_generation(output: Path, rows: int, remark: Callable[[str], None]) -> None:
    """Removes ids outside the vocabulary from a folder's generation_config.json, if it has one.

    Raises:
        BuildError: It is not readable.
    """
    path = output / GENERATION
    if not path.is_file():
        return
    before = read_object(path)
    after: dict[str, Any] = {}
    for key, value in before.items():
        if not key.endswith(("_token_id", "_token_ids", "_tokens")):
            after[key] = value
            continue
        kept = ids_inside(value, rows)
        if kept != value:
            remark(f"{GENERATION}: {key}: {value} is outside the vocabulary of {rows:,}: it is dropped")
        if kept is not None:
            after[key] = kept
    if after != {key: value for key, value in before.items() if value is not None or key in after}:
        write_json(path, after)
