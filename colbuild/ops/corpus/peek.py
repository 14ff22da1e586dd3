"""A look at the beginning of a corpus, before anything is built: whether it can be read as the spec asks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from colbuild.ops.corpus.choose import choose
from colbuild.ops.corpus.files import is_compressed
from colbuild.ops.corpus.readers import FORMATS
from colbuild.ops.corpus.reading import Reading

_UNPACKED_FIRST = ("parquet", "arrow")


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
    first = next((path for path in chosen.files if path.stat().st_size), None)
    if first is None or (chosen.format in _UNPACKED_FIRST and is_compressed(first)):
        return
    reading, found = Reading((first,), field, first.parent), FORMATS[chosen.format]
    if found.peek is not None:
        found.peek(reading)
        return
    with closing(found.read(reading)) as documents:
        next(documents, None)
