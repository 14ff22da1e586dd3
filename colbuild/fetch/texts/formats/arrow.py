"""Arrow files from `datasets`, memory-mapped; pages are released after they are read."""

from __future__ import annotations

import mmap
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from colbuild.errors import BuildError, SourceError
from colbuild.fetch.texts.formats.columns import column_texts, text_column
from colbuild.fetch.texts.raw_files import is_compressed, starts_with, unpacked, wrong_file
from colbuild.fetch.texts.reading import Reading
from colbuild.spec.sources.formats import FORMATS

if TYPE_CHECKING:
    import pyarrow as pa

_FILE_MAGIC, _STREAM_MAGIC = FORMATS["arrow"].magic
_HELD: Final = 1 << 25
"""Bytes of text after which the pages that were read are given back: they count as the process's memory."""


def read(reading: Reading) -> Generator[str, None, None]:
    """The text of each row; a file without rows has none.

    Raises:
        BuildError: A file is not Arrow, is damaged, or lacks the column.
    """
    for path in reading.files:
        plain = unpacked(path, reading.scratch) if is_compressed(path) else path
        start = starts_with(plain, len(_FILE_MAGIC))
        if not start.startswith((_FILE_MAGIC, _STREAM_MAGIC)):
            raise wrong_file(plain, path) or SourceError(
                f"{path} is not an Arrow file", hint="check 'format' of the data", key="format"
            )
        yield from _rows(plain, path, reading, is_stream=start.startswith(_STREAM_MAGIC))


def _rows(plain: Path, path: Path, reading: Reading, *, is_stream: bool) -> Iterator[str]:
    import pyarrow as pa

    try:
        with plain.open("rb") as file:
            pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        source = pa.BufferReader(pa.py_buffer(pages))
        opened = pa.ipc.open_stream(source) if is_stream else pa.ipc.open_file(source)
        column, number, held = "", 1, 0
        for batch in _batches(opened, is_stream=is_stream):
            if not batch.num_rows:
                continue
            column = column or text_column(opened.schema, reading.field, str(path))
            # Offsets beyond the file would read memory that is none of the text.
            batch.column(column).validate(full=True)
            for text in column_texts(batch, column, reading.field, str(path), number):
                held += len(text)
                if held > _HELD:
                    held = 0
                    _give_back(pages)
                yield text
            number += batch.num_rows
    except (pa.ArrowException, ValueError, OSError) as error:
        raise BuildError(
            f"{path} cannot be read as Arrow: {error}", hint="get it again, in case it is truncated"
        ) from error


def _batches(opened: pa.RecordBatchReader | pa.RecordBatchFileReader, *, is_stream: bool) -> Iterator[pa.RecordBatch]:
    if is_stream:
        yield from opened
    else:
        for index in range(opened.num_record_batches):
            yield opened.get_batch(index)


def _give_back(pages: mmap.mmap) -> None:
    if hasattr(mmap, "MADV_DONTNEED"):
        # What is read again comes from the file again: the mapping is read-only.
        pages.madvise(mmap.MADV_DONTNEED)
