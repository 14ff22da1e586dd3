"""Packed text as the training, calibration and evaluation steps read it. `colbuild.ops.corpus` writes it.

A split is one stream of token ids, each document followed by a separator::

    train.bin         token ids, little-endian, uint16 or uint32          [a a a a . b b . c c c c c .]
    train.index.bin   per part: first token, UTF-8 bytes, document        (0, 17, 0) (5, 8, 1) (8, 21, 2)
    corpus.json       the token type, the separator, the counts; `begin`, if texts begin with tokens of their own

Where the tokenizer puts tokens in front of a text, each document has them in front
(`colbuild.train.corpus.text_beginning`), and no part counts them. A document is one part, unless it is long.

Importing this module imports no torch, since the corpus step needs none.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from colbuild.documents import read_json_file
from colbuild.errors import BuildError
from colbuild.plan.steps.corpus import META, SPLITS

if TYPE_CHECKING:
    pass

FORMAT: Final = 1
INDEX_DTYPE: Final = "<i8"
INDEX_WIDTH: Final = 3


def tokens_path(folder: Path, split: str) -> Path:
    """Returns the path of a split's token ids."""
    return folder / f"{split}.bin"


def index_path(folder: Path, split: str) -> Path:
    """Returns the path of a split's list of parts."""
    return folder / f"{split}.index.bin"


@dataclass(frozen=True)
class SplitCounts:
    """Counts of a split.

    Attributes:
        documents: How many.
        parts: Rows of the index.
        tokens: Separators and beginnings included.
        bytes: UTF-8 bytes of text.
    """

    documents: int
    parts: int
    tokens: int
    bytes: int


NOTHING: Final = SplitCounts(0, 0, 0, 0)


@dataclass(frozen=True, eq=False)
class _Stream:
    """A memory-mapped split: ids [tokens] and index [parts, 3]."""

    ids: NDArray[np.unsignedinteger[Any]]
    index: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class PackedCorpus:
    """A corpus, or one side of its split, opened for reading.

    Attributes:
        folder: Where it is.
        split: "train", "heldout" or "all".
        separator: The token id after each document.
        vocabulary: One more than the largest token id.
        counts: What it holds.
        streams: Its memory-mapped files, which together make one stream of tokens.
        begin: Token ids that every text begins with.
    """

    folder: Path
    split: str
    separator: int
    vocabulary: int
    counts: SplitCounts
    streams: tuple[_Stream, ...]
    begin: tuple[int, ...] = ()

    @property
    def tokens(self) -> int:
        """Tokens in the stream, separators and beginnings included."""
        return self.counts.tokens

    @property
    def bytes(self) -> int:
        """UTF-8 bytes of the text."""
        return self.counts.bytes

    @property
    def documents(self) -> int:
        """Documents in the stream."""
        return self.counts.documents

    def read(self, start: int, stop: int) -> NDArray[np.int64]:
        """The tokens [start, stop) of the stream."""
        found = []
        for stream in self.streams:
            length = len(stream.ids)
            found.append(stream.ids[max(start, 0) : max(min(stop, length), 0)])
            start, stop = start - length, stop - length
        return np.concatenate(found).astype(np.int64)


def open_corpus(folder: Path, split: str) -> PackedCorpus:
    """Opens a corpus without reading its tokens.

    Args:
        folder: The output of the corpus step.
        split: "train", "heldout" or "all".

    Raises:
        BuildError: It is missing, damaged or of another version, or the split is empty.
    """
    try:
        meta = read_json_file(folder / META)
        if meta["format"] != FORMAT:
            raise BuildError(
                f"{folder} is a corpus of format {meta['format']}; this colbuild reads format {FORMAT}",
                hint="build it again",
            )
        parts = [SplitCounts(**meta["splits"][name]) for name in SPLITS[split]]
        streams = tuple(
            _open_stream(folder, name, meta["dtype"], counts) for name, counts in zip(SPLITS[split], parts, strict=True)
        )
        separator, vocabulary = int(meta["separator"]), int(meta["vocabulary"])
        begin = tuple(int(token) for token in meta.get("begin", ()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BuildError(f"{folder} is not a packed corpus, or is damaged: {error}", hint="build it again") from error
    counts = SplitCounts(
        documents=sum(part.documents for part in parts),
        parts=sum(part.parts for part in parts),
        tokens=sum(part.tokens for part in parts),
        bytes=sum(part.bytes for part in parts),
    )
    if counts.documents == 0:
        raise BuildError(
            f"the {split} split of the corpus is empty",
            hint="raise 'heldout' in the data section, or write 'split: all'",
        )
    return PackedCorpus(folder, split, separator, vocabulary, counts, streams, begin)


def _open_stream(folder: Path, name: str, dtype: str, counts: SplitCounts) -> _Stream:
    ids = _map(tokens_path(folder, name), dtype, counts.tokens)
    return _Stream(
        ids, _map(index_path(folder, name), INDEX_DTYPE, counts.parts * INDEX_WIDTH).reshape(-1, INDEX_WIDTH)
    )


def _map(path: Path, dtype: str, length: int) -> NDArray[Any]:
    if path.stat().st_size != length * np.dtype(dtype).itemsize:
        raise ValueError(f"{path.name} does not have the size that {META} says")
    # An empty file cannot be mapped.
    return np.memmap(path, dtype=dtype, mode="r") if length else np.empty(0, dtype)
