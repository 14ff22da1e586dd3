"""CSV and TSV: the first line names the columns, and a column is the text."""

from __future__ import annotations

import csv
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Final

from colbuild.bounds import COLUMN_NAMES, DOCUMENT_CHARACTERS
from colbuild.errors import SourceError
from colbuild.fetch.texts.raw_files import lines
from colbuild.fetch.texts.reading import Reading, missing_field
from colbuild.spec.sources.formats import suffix_of

_BETWEEN: Final = ",;\t|"


def read(reading: Reading) -> Generator[str, None, None]:
    """The text of each row.

    Raises:
        BuildError: A file has no such column, or a row other columns than the first line; it is damaged, cut off, or not UTF-8.
    """
    for path in reading.files:
        yield from _rows(path, reading.field)


def _rows(path: Path, field: str) -> Iterator[str]:
    header = next((line for line in lines(path, most=DOCUMENT_CHARACTERS) if line.strip()), None)
    if header is None:
        return
    if len(header) > COLUMN_NAMES:
        message = f"{path}: the first line, which names the columns, has more than {COLUMN_NAMES:,} characters"
        raise SourceError(message, hint="check 'format' of the data, and the file", key="format")
    between = _delimiter(header, field, path)
    # The module's own limit is 131,072 characters, and one for all readers.
    before = csv.field_size_limit(DOCUMENT_CHARACTERS)
    try:
        reader = csv.reader(lines(path, most=DOCUMENT_CHARACTERS), delimiter=between, strict=True)
        names: list[str] = []
        for row in reader:
            if not row:
                continue
            if not names:
                names = [name.strip() for name in row]
                if field not in names:
                    raise missing_field(field, [(name, True) for name in names], f"{path}:1", "column")
                column = names.index(field)
                continue
            if len(row) != len(names):
                raise _ragged(f"{path}:{reader.line_num}", row, names)
            yield row[column]
    except csv.Error as error:
        hint = "put quotation marks around a value that contains a quotation mark or a line break"
        raise SourceError(f"{path}:{reader.line_num}: broken CSV: {error}", hint=hint, key="format") from error
    finally:
        csv.field_size_limit(before)


def _delimiter(header: str, field: str, path: Path) -> str:
    """What stands between columns: whatever makes the first line name the field."""
    usual = "\t" if suffix_of(path.name) == ".tsv" else ","
    for between in dict.fromkeys(usual + _BETWEEN):
        if field in _names(header, between):
            return between
    most = max(dict.fromkeys(usual + _BETWEEN), key=lambda between: len(_names(header, between)))
    raise missing_field(field, [(name, True) for name in _names(header, most)], f"{path}:1", "column")


def _names(header: str, between: str) -> list[str]:
    try:
        return [name.strip() for name in next(csv.reader([header], delimiter=between, strict=True), [])]
    except csv.Error:
        return []


def _ragged(place: str, row: Sequence[str], names: Sequence[str]) -> SourceError:
    return SourceError(
        f"{place}: the row has {len(row)} values, and the first line names {len(names)} columns",
        hint="put quotation marks around a value that contains the separator",
        key="format",
    )
