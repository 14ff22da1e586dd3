"""Parquet, a few rows at a time: a limit reads no more than it needs, and memory holds no row group."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Final

from colbuild.errors import BuildError, SourceError
from colbuild.fetch.texts.formats.columns import column_texts, text_column
from colbuild.fetch.texts.raw_files import is_compressed, starts_with, unpacked, wrong_file
from colbuild.fetch.texts.reading import Reading
from colbuild.spec.sources.formats import FORMATS

(_MAGIC,) = FORMATS["parquet"].magic
_ROWS: Final = 16
"""Rows that are decoded at once: few, since a row may be a library."""

_BUFFER: Final = 1 << 20
"""Bytes of a column that are read at once; without a buffer the whole column of a row group is."""


def read(reading: Reading) -> Generator[str, None, None]:
    """The text of each row; a file without rows has none.

    Raises:
        BuildError: A file is not Parquet, is damaged, or lacks the column.
    """
    for path in reading.files:
        plain = unpacked(path, reading.scratch) if is_compressed(path) else path
        if starts_with(plain, len(_MAGIC)) != _MAGIC:
            raise wrong_file(plain, path) or SourceError(
                f"{path} is not a Parquet file", hint="check 'format' of the data", key="format"
            )
        yield from _rows(plain, path, reading)


def _rows(plain: Path, path: Path, reading: Reading) -> Iterator[str]:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(plain, buffer_size=_BUFFER, pre_buffer=False) as file:
            if not file.metadata.num_rows:
                return
            column = text_column(file.schema_arrow, reading.field, str(path))
            wanted = [reading.field if column != reading.field else column]
            number = 1
            for batch in file.iter_batches(_ROWS, columns=wanted, use_threads=False):
                yield from column_texts(batch, column, reading.field, str(path), number)
                number += batch.num_rows
    except (pa.ArrowException, ValueError, OSError) as error:
        raise BuildError(
            f"{path} cannot be read as Parquet: {error}", hint="get it again, in case it is truncated"
        ) from error
