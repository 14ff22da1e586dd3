"""Parses a source as the user writes it; `colbuild.spec.sources.schemes` lists the schemes.

Only the text is looked at here; `colbuild.fetch.fetching` fetches what it names.
"""

from __future__ import annotations

import re
from typing import Final

from colbuild.spec.sources.choice import MARK, split_files
from colbuild.spec.sources.mistakes import source_mistake
from colbuild.spec.sources.schemes import Scheme, scheme_of, supported
from colbuild.spec.sources.source_kinds import Source

_SCHEME: Final = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")


def check_source(text: str) -> str:
    """The text itself, if it is a source.

    Raises:
        ValueError: It is not; the message says what was expected.
    """
    parse_source(_without_choice(text))
    return text


def check_data_source(text: str) -> str:
    """Like `check_source`, for a source of text: what is suggested instead is a dataset."""
    parse_source(_without_choice(text), dataset=True)
    return text


def _without_choice(text: str) -> str:
    if MARK in text:
        raise ValueError(f"'{MARK}' is not allowed in a source; write the choice of files beside it: files: train-*")
    return text


def parse_source(text: str, *, dataset: bool = False) -> Source:
    """Reads a source; which of its files are meant, if that is part of the text, is left out.

    Args:
        text: As the user wrote it.
        dataset: Whether a dataset is suggested where it is no source, rather than a model.

    Raises:
        ValueError: It is none of the supported kinds, or lacks a part; the message says what was expected.
    """
    return read_source(text, dataset=dataset)[1]


def read_source(text: str, *, dataset: bool = False) -> tuple[Scheme, Source]:
    """Reads a source as `parse_source` does; returns its scheme too."""
    text, _ = split_files(text)
    if not text.strip():
        raise ValueError(f"a source is needed; {supported()}")
    if any(ord(character) < 32 for character in text) or text != text.strip():
        raise ValueError("a source has no line breaks or control characters, nor spaces around it")
    row = scheme_of(text)
    if row is not None:
        return row, row.parse(text, row)
    mistake = source_mistake(text, dataset=dataset)
    if mistake is not None:
        raise ValueError("; ".join(mistake))
    if scheme := _SCHEME.match(text):
        raise ValueError(f"'{scheme.group(1)}://' is not supported; supported: {supported()}")
    raise ValueError(f"'{text}' is not a source; supported: {supported()}")
