"""Parquet, through `datasets`, streamed: a limit reads no more row groups than it needs."""

from __future__ import annotations

import glob
from collections.abc import Generator, Iterator
from pathlib import Path

from colbuild.errors import BuildError
from colbuild.ops.corpus.files import CutOffError, chunks, is_compressed, starts_with
from colbuild.ops.corpus.reading import Reading, field_text

_MAGIC = b"PAR1"


def read(reading: Reading) -> Generator[str, None, None]:
    """The text of each row.

    Raises:
        BuildError: A file is not Parquet, is damaged, or lacks the column.
    """
    for path in reading.files:
        plain = _decompressed(path, reading.scratch) if is_compressed(path) else path
        if starts_with(plain, len(_MAGIC)) != _MAGIC:
            raise BuildError(f"{path} is not a Parquet file", hint="check 'format' of the data")
        yield from _rows(plain, path, reading)


def _rows(plain: Path, path: Path, reading: Reading) -> Iterator[str]:
    from datasets import Dataset

    # A path is taken for a pattern unless escaped.
    where, scratch = glob.escape(str(plain)), str(reading.scratch)
    try:
        columns = Dataset.from_parquet(where, cache_dir=scratch, streaming=True).features or {}
        column = reading.field if reading.field in columns else reading.field.split(".")[0]
        if column not in columns:
            # Told before any row is read, so with the names of all columns.
            field_text(dict.fromkeys(columns), reading.field, str(path))
        rows = Dataset.from_parquet(where, columns=[column], cache_dir=scratch, streaming=True)
        for number, row in enumerate(rows, start=1):
            yield field_text(row, reading.field, f"{path}, row {number}")
    except (ValueError, OSError) as error:
        raise BuildError(
            f"{path} cannot be read as Parquet: {error}", hint="it may be cut off: get it again"
        ) from error


def _decompressed(path: Path, scratch: Path) -> Path:
    """Parquet is read from its end, so a compressed file has to be unpacked first."""
    target = scratch / "unpacked.parquet"
    try:
        with target.open("wb") as file:
            for data in chunks(path):
                file.write(data)
    except CutOffError as error:
        raise BuildError(str(error), hint="get it again") from error
    return target
