"""A look at the beginning of a corpus, before anything is built: whether it can be read as the spec asks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from colbuild.errors import SourceError
from colbuild.fetch.texts.choose import choose
from colbuild.fetch.texts.raw_files import is_compressed
from colbuild.fetch.texts.readers import FORMATS
from colbuild.fetch.texts.reading import Reading

_UNPACKED_FIRST: Final = ("parquet", "arrow")
_WITHOUT_FIELDS: Final = ("text", "mediawiki")
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
    if chosen.format in _WITHOUT_FIELDS and field != _DEFAULT:
        message = f"'text: {field}' names a field, and {raw} is read as {chosen.format}, which has no fields"
        raise SourceError(message, hint="remove 'text', or name the format: 'format: jsonl'", key="text")
    first = next((path for path in chosen.files if path.stat().st_size), None)
    if first is None or (chosen.format in _UNPACKED_FIRST and is_compressed(first)):
        return
    reading, found = Reading((first,), field, first.parent), FORMATS[chosen.format]
    if found.peek is not None:
        found.peek(reading)
        return
    with closing(found.read(reading)) as documents:
        next(documents, None)
