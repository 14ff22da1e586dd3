"""Writes packed splits while documents arrive, and moves a document to an empty split."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from colbuild.fetch.texts.raw_files import CHUNK
from colbuild.ops.corpus.tokens import Tokenised, Vocabulary
from colbuild.train.corpus.packing import INDEX_DTYPE, INDEX_WIDTH, NOTHING, SplitCounts, index_path, tokens_path
from colbuild.train.corpus.text_beginning import stored


@dataclass(frozen=True)
class _Place:
    """The place of a document in its split: [first, last) in tokens and in rows of the index."""

    rank: float
    tokens: tuple[int, int]
    rows: tuple[int, int]
    size: int


@dataclass
class SplitWriter:
    """One split's two files, open for appending; a context manager.

    Attributes:
        folder: Where they are.
        name: The split.
        vocabulary: Gives the type of a token, the beginning and the separator.
        counts: What has been written.
    """

    folder: Path
    name: str
    vocabulary: Vocabulary
    counts: SplitCounts = NOTHING
    lowest: _Place | None = field(default=None, init=False)
    highest: _Place | None = field(default=None, init=False)

    def __enter__(self) -> SplitWriter:
        self._tokens = tokens_path(self.folder, self.name).open("wb")
        self._index = index_path(self.folder, self.name).open("wb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tokens.close()
        self._index.close()

    def add(self, document: Tokenised) -> None:
        """Appends a document's beginning, its parts and the separator."""
        before = self.counts
        rows = []
        opening = stored(self.vocabulary.begin, self.vocabulary.separator)
        self._tokens.write(np.asarray(opening, dtype=self.vocabulary.dtype).tobytes())
        start = before.tokens + len(opening)
        for ids, size in document.parts:
            self._tokens.write(ids.astype(self.vocabulary.dtype).tobytes())
            rows.append((start, size, before.documents))
            start += len(ids)
        self._tokens.write(np.asarray([self.vocabulary.separator], dtype=self.vocabulary.dtype).tobytes())
        self._index.write(np.asarray(rows, dtype=INDEX_DTYPE).tobytes())
        size = document.document.size
        self.counts = SplitCounts(before.documents + 1, before.parts + len(rows), start + 1, before.bytes + size)
        place = _Place(document.document.rank, (before.tokens, start + 1), (before.parts, self.counts.parts), size)
        if self.lowest is None or place.rank < self.lowest.rank:
            self.lowest = place
        if self.highest is None or place.rank > self.highest.rank:
            self.highest = place


def fill_empty(train: SplitWriter, heldout: SplitWriter) -> tuple[SplitCounts, SplitCounts]:
    """After writing: if one of two wanted splits is empty, gives it the other's document nearest to the border.

    That document is the one of lowest rank in train, or of highest rank in held-out: it too is chosen by texts alone.
    """
    if heldout.counts.documents == 0 and train.counts.documents >= 2 and train.lowest is not None:
        return _move(train, heldout, train.lowest)
    if train.counts.documents == 0 and heldout.counts.documents >= 2 and heldout.highest is not None:
        return _move(heldout, train, heldout.highest)[::-1]
    return train.counts, heldout.counts


def _move(source: SplitWriter, empty: SplitWriter, place: _Place) -> tuple[SplitCounts, SplitCounts]:
    width = np.dtype(source.vocabulary.dtype).itemsize
    (first, last), (top, bottom) = place.tokens, place.rows
    _cut_out(
        tokens_path(source.folder, source.name), tokens_path(empty.folder, empty.name), first * width, last * width
    )
    path = index_path(source.folder, source.name)
    rows = np.fromfile(path, dtype=INDEX_DTYPE).reshape(-1, INDEX_WIDTH)
    moved, after = rows[top:bottom], rows[bottom:]
    _write(index_path(empty.folder, empty.name), [moved - np.asarray([first, 0, moved[0, 2]])])
    _write(path, [rows[:top], after - np.asarray([last - first, 0, 1])])
    counts = source.counts
    gone = SplitCounts(1, bottom - top, last - first, place.size)
    kept = SplitCounts(
        *(getattr(counts, name) - getattr(gone, name) for name in ("documents", "parts", "tokens", "bytes"))
    )
    return kept, gone


def _copy(source: BinaryIO, target: BinaryIO, size: int) -> None:
    while size:
        data = source.read(min(size, CHUNK))
        target.write(data)
        size -= len(data)


def _write(path: Path, blocks: Sequence[NDArray[np.int64]]) -> None:
    with path.open("wb") as file:
        for block in blocks:
            file.write(block.astype(INDEX_DTYPE).tobytes())


def _cut_out(source: Path, target: Path, first: int, last: int) -> None:
    """Moves the bytes [first, last) of a file to another, without holding the rest in memory."""
    rest = source.with_suffix(".rest")
    with source.open("rb") as file, target.open("wb") as moved, rest.open("wb") as kept:
        _copy(file, kept, first)
        _copy(file, moved, last - first)
        shutil.copyfileobj(file, kept)
    rest.replace(source)
