"""Imports the reader of a format when a corpus has it; the formats are rows of `colbuild.spec.sources.formats.FORMATS`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from colbuild.fetch.texts.reading import Reader, Reading
from colbuild.spec.sources.formats import FORMATS


def reader_of(form: str) -> Reader:
    """Returns the reader of a format."""
    read: Reader = import_module(FORMATS[form].reader).read
    return read


def peek_of(form: str) -> Callable[[Reading], object] | None:
    """Returns the format's quick check, which reads less than a document; None if the format has none."""
    peek: Callable[[Reading], object] | None = getattr(import_module(FORMATS[form].reader), "peek", None)
    return peek
