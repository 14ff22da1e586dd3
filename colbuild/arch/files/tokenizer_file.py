"""Loads a tokenizer.json without truncation and padding: the only module that opens such a file."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, Final

from rapidfuzz import process
from tokenizers import Tokenizer

from colbuild.arch.files.json_file import object_if_there
from colbuild.arch.files.model_files import SETTINGS
from colbuild.errors import BuildError, short_text

ORDERS: Final = ("truncation", "padding")
"""Keys of tokenizer.json that say how an earlier program cut and padded its texts. transformers resets both at every call."""

NONE: Final = "none"
"""`data.begin: none`: nothing is put in front of a text."""

DROPPED: Final = "dropped_tokens"
"""Key of tokenizer_config.json that lists the added tokens without a row in the embedding, which the source step dropped."""


def load_tokenizer(path: Path, hint: str | None = None) -> Tokenizer:
    """Reads a tokenizer.json, without what it says of cutting and padding texts.

    Args:
        path: The file.
        hint: What to do about a file that cannot be read.

    Raises:
        BuildError: The file is missing or is not a tokenizer.
    """
    if not path.is_file():
        raise BuildError(f"{path} cannot be read: the file does not exist", hint=hint)
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # The library raises nothing narrower, and a panic of its own is no Exception.
        raise BuildError(f"{path} cannot be read: {short_text(error)}", hint=hint) from error
    return unlimited(tokenizer)


def first_token(tokenizer: Tokenizer, name: str) -> tuple[int, ...]:
    """The ids that `data.begin` in a spec stands for: that of a token, or none.

    Raises:
        BuildError: The tokenizer has no such token.
    """
    if name == NONE:
        return ()
    index = tokenizer.token_to_id(name)
    if index is None:
        special = [added.content for added in tokenizer.get_added_tokens_decoder().values()]
        near = [found for found, *_ in process.extract(name, special, limit=3)]
        raise BuildError(
            f"'begin': the tokenizer has no token '{name}'",
            hint=f"its special tokens are {', '.join(near)}" if near else "write begin: none",
        )
    return (int(index),)


def unlimited(tokenizer: Tokenizer) -> Tokenizer:
    """The same tokenizer, made to encode whole texts and to add no padding."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def without_orders(content: dict[str, Any]) -> dict[str, Any]:
    """The content of a tokenizer.json that neither cuts nor pads."""
    return {**content, **{key: None for key in ORDERS if content.get(key) is not None}}


def read_settings(folder: Path) -> dict[str, Any]:
    """A folder's tokenizer_config.json; empty if it has none.

    Raises:
        BuildError: It holds no JSON object.
    """
    return object_if_there(folder / SETTINGS)


def dropped_tokens(folder: Path) -> tuple[str, ...]:
    """The added tokens of a model's tokenizer that the source step dropped, because the embedding has no row for them."""
    found = read_settings(folder).get(DROPPED)
    return tuple(token for token in found if isinstance(token, str)) if isinstance(found, list) else ()


def refuse_dropped(texts: Iterable[str], dropped: Collection[str], called: str) -> None:
    """Raises BuildError if a text spells a dropped token: the model has never seen its characters as plain text."""
    for text in texts if dropped else ():
        for token in dropped:
            if token in text:
                raise BuildError(
                    f"{called} contains '{token}', a token of the tokenizer that the model's embedding has no row for",
                    hint=f"remove '{token}' from the text",
                )
