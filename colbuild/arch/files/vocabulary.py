"""The number of ids of a tokenizer, from its files alone, for planning."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from colbuild.arch.files.json_file import read_object
from colbuild.arch.files.model_files import TOKENIZER
from colbuild.bounds import ROWS
from colbuild.errors import BuildError

_OLDER: Final = "vocab.json"


def read_vocabulary(raw: Path) -> int:
    """One more than the largest id of a tokenizer.

    Args:
        raw: A tokenizer.json, or a folder that holds one, or a vocab.json and merges.txt.

    Raises:
        BuildError: It is no tokenizer.
    """
    path = raw
    if raw.is_dir():
        path = next((raw / name for name in (TOKENIZER, _OLDER) if (raw / name).is_file()), raw / TOKENIZER)
    if not path.is_file() and (raw / "tokenizer.model").is_file():
        raise BuildError(
            f"{raw} has only tokenizer.model as its tokenizer",
            hint=f"load it with transformers and sentencepiece, and call save_pretrained, which writes a {TOKENIZER}",
        )
    content = read_object(path, f"name a {TOKENIZER}, or a folder with one, in 'tokenizer'")
    if path.name != _OLDER:
        return 1 + highest_id(content)
    if not content or not all(isinstance(one, int) and 0 <= one < ROWS for one in content.values()):
        raise BuildError(f"{path} is not a vocabulary: it needs tokens with an id from 0 to {ROWS - 1:,}")
    return 1 + int(max(content.values()))


def highest_id(content: Mapping[str, Any]) -> int:
    """The largest id in a tokenizer.json.

    Raises:
        BuildError: It is of another form.
    """
    try:
        vocabulary = content["model"]["vocab"]
        # A unigram model lists its pieces in order; the others map them to ids.
        highest = len(vocabulary) - 1 if isinstance(vocabulary, list) else max(vocabulary.values(), default=-1)
        highest = max([highest, *(token["id"] for token in content.get("added_tokens") or ())])
        if isinstance(highest, int) and highest < ROWS:
            return highest
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise BuildError(f"{TOKENIZER} is not a tokenizer: {error!r} is missing or of another form") from None
    raise BuildError(f"{TOKENIZER} is not a tokenizer: its largest id is {highest!r}; the limit is {ROWS - 1:,}")


def ids_inside(value: Any, rows: int) -> Any:
    """Token ids without those outside a vocabulary: None where none is left; anything but ids stays."""
    if isinstance(value, list):
        return [kept for one in value if (kept := ids_inside(one, rows)) is not None] or None
    if isinstance(value, int) and not isinstance(value, bool) and not 0 <= value < rows:
        return None
    return value
