"""Reads the first record of a corpus, to check the spec's keys before a build."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from colbuild.errors import SourceError
from colbuild.fetch.texts.choose import choose
from colbuild.fetch.texts.raw_files import is_compressed
from colbuild.fetch.texts.readers import peek_of, reader_of
from colbuild.fetch.texts.reading import Reading
from colbuild.spec.sources.formats import FORMATS, JSONL

_DEFAULT: Final = "text"


def peek(raw: Path, form: str, field: str, globs: Sequence[str] = ()) -> None:
    """Chooses the files of a corpus, and reads the first document of the first file that is not empty.

    Args:
        raw: A file or folder on this machine.
        form: A format, or "auto".
        field: The field that holds the text.
        globs: Which files of a folder are meant.

    Raises:
        BuildError: They cannot be chosen or read; a `SourceError` says which key of the spec that is about.
        OSError: The disk refuses.
    """
    chosen = choose(raw, form, globs)
    row = FORMATS[chosen.format]
    if not row.fields and field != _DEFAULT:
        message = f"'text: {field}' names a field, and {raw} is read as {chosen.format}, which has no fields"
        raise SourceError(message, hint=f"remove 'text', or name the format: 'format: {JSONL}'", key="text")
    first = next((path for path in chosen.files if path.stat().st_size), None)
    if first is None or (row.columns and is_compressed(first)):
        return
    reading, look = Reading((first,), field, first.parent), peek_of(row.name)
    if look is not None:
        look(reading)
        return
    with closing(reader_of(row.name)(reading)) as documents:
        next(documents, None)
