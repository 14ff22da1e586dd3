"""Tokenises text in parallel, and reads facts of the tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from colbuild.arch.files.json_file import object_if_there
from colbuild.arch.files.model_files import SETTINGS, TOKENIZER
from colbuild.arch.files.tokenizer_file import dropped_tokens, load_tokenizer, refuse_dropped
from colbuild.errors import BuildError
from colbuild.fetch.texts.raw_files import pieces
from colbuild.fetch.texts.text_documents import Document
from colbuild.train.corpus.text_beginning import beginning

PART: Final = 1 << 14
"""Characters of a document that are tokenised as one. The byte count of every part is kept, so a measurement can stop
inside a long document and its bits per byte stay exact."""

_BATCH: Final = 1 << 20
_AT_ONCE: Final = _BATCH // PART
"""Parts that are encoded at once: an encoding takes many times the memory of its text, and a document may be a library."""

_END: Final = "<|endoftext|>"


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer, ready to use.

    Attributes:
        tokenizer: From the `tokenizers` library.
        size: One more than its largest id.
        separator: The id that follows each document.
        dropped: Added tokens that the model's embedding has no row for; no document may spell one.
        begin: The ids that the tokenizer puts in front of every text.
    """

    tokenizer: Tokenizer
    size: int
    separator: int
    dropped: tuple[str, ...] = ()
    begin: tuple[int, ...] = ()

    @property
    def opening(self) -> tuple[int, ...]:
        """The ids that a text begins with for a model: its beginning, or else the separator."""
        return self.begin or (self.separator,)

    @property
    def dtype(self) -> str:
        """The smallest little-endian type that holds every id."""
        return "<u2" if self.size <= 1 << 16 else "<u4"


@dataclass(frozen=True)
class Tokenised:
    """A document's token ids and UTF-8 bytes, part by part."""

    document: Document
    parts: tuple[tuple[NDArray[np.uint32], int], ...]


def load_vocabulary(folder: Path) -> Vocabulary:
    """Reads the tokenizer of a model folder.

    Raises:
        BuildError: There is none, it cannot be read, or no token can separate documents.
    """
    path = folder / TOKENIZER
    if not path.is_file():
        raise BuildError(f"{folder} has no tokenizer.json", hint="use a model with a tokenizer.json")
    tokenizer = load_tokenizer(path, hint="get the model again")
    size = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
    return Vocabulary(tokenizer, size, _separator(tokenizer, folder), dropped_tokens(folder), beginning(tokenizer))


def tokenise(documents: Iterable[Document], vocabulary: Vocabulary) -> Iterator[list[Tokenised]]:
    """Batches of tokenised documents, in order; at most about a batch of text is held at once."""
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += document.size
        if size >= _BATCH:
            yield _tokenise(batch, vocabulary)
            batch, size = [], 0
    if batch:
        yield _tokenise(batch, vocabulary)


def _tokenise(batch: list[Document], vocabulary: Vocabulary) -> list[Tokenised]:
    refuse_dropped((document.text for document in batch), vocabulary.dropped, "a document of the corpus")
    parts = [list(pieces(document.text, PART)) for document in batch]
    encodings = _encoded([part for document in parts for part in document], vocabulary)
    return [
        Tokenised(
            document,
            tuple((np.asarray(next(encodings).ids, dtype=np.uint32), len(part.encode("utf-8"))) for part in own),
        )
        for document, own in zip(batch, parts, strict=True)
    ]


def _encoded(parts: list[str], vocabulary: Vocabulary) -> Iterator[Encoding]:
    """The encodings of parts, about a batch of text at once: a document may be many times as long as a batch."""
    for start in range(0, len(parts), _AT_ONCE):
        yield from vocabulary.tokenizer.encode_batch_fast(parts[start : start + _AT_ONCE], add_special_tokens=False)


def _separator(tokenizer: Tokenizer, folder: Path) -> int:
    settings = object_if_there(folder / SETTINGS, hint="get the model again")
    for token in (_END, settings.get("eos_token"), settings.get("bos_token")):
        name = token.get("content") if isinstance(token, dict) else token
        found = tokenizer.token_to_id(name) if isinstance(name, str) else None
        if found is not None:
            return int(found)
    raise BuildError(
        f"the tokenizer in {folder} has no separator token for documents: neither {_END}, nor an eos or bos token",
        hint='name one in its tokenizer_config.json: "eos_token"',
    )
