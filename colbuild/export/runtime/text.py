"""Decodes token ids to text while tokens are generated."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from tokenizers import Tokenizer

REPLACEMENT: Final = "\ufffd"
"""What a decoder writes for bytes that are no character, or not one yet."""


def stream_text(tokenizer: Tokenizer, tokens: Iterable[int]) -> Iterator[str]:
    """Decodes tokens as they come; the pieces joined are the text of all of them together.

    A token may be a part of a character only, so text is held back until it no longer ends within one. Each piece is
    decoded together with the one before it, because decoders treat the first token of a text in a way of their own.
    """
    ids: list[int] = []
    before, told = 0, 0
    for token in tokens:
        ids.append(token)
        known = tokenizer.decode(ids[before:told])
        text = tokenizer.decode(ids[before:])
        if len(text) > len(known) and not text.endswith(REPLACEMENT):
            yield text[len(known) :]
            before, told = told, len(ids)
    rest = tokenizer.decode(ids[before:])[len(tokenizer.decode(ids[before:told])) :]
    if rest:
        yield rest
