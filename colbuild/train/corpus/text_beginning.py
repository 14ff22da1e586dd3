"""The tokens at the beginning of a text (BOS), and their places in windows of packed text.

Many models compute nonsense without them: the attention of all later tokens rests on the first position. A tokenizer puts them
in front of a text by its post-processor, which is what `tokenizer(text)` in transformers does; the step `source` writes every
tokenizer so that its post-processor alone decides.

::

    stream     [B a a a a . B b b b . B c c c c c c c .]        B begins a text, . separates documents
    windows     B a a a a . B b b                               cut at a document's beginning: as it is
                              B b b . B c c c                   cut inside a document: B is put in front
                                            B c c c c .

Importing this module imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from colbuild.errors import BuildError

if TYPE_CHECKING:
    import torch

_SAMPLE = "a"


class Stream(Protocol):
    """Packed text, as far as its windows are concerned."""

    @property
    def separator(self) -> int:
        """The token id after each document."""

    @property
    def begin(self) -> tuple[int, ...]:
        """Token ids that every text begins with."""

    @property
    def tokens(self) -> int:
        """Tokens in the stream."""

    def read(self, start: int, stop: int) -> NDArray[np.int64]:
        """The tokens [start, stop) of the stream."""


def beginning(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Token ids that a tokenizer puts in front of every text; empty for most tokenizers.

    The tokenizer must neither pad nor truncate.
    """
    encoding = tokenizer.encode(_SAMPLE, add_special_tokens=True)
    plain = tokenizer.encode(_SAMPLE, add_special_tokens=False).ids
    added = len(encoding.ids) - len(plain)
    for count in range(added + 1):
        if encoding.ids[count : count + len(plain)] == plain:
            return tuple(encoding.ids[:count])
    return ()


def text_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """The token ids of a text that is going to be continued: its beginning in front, nothing behind it."""
    return [*beginning(tokenizer), *tokenizer.encode(text, add_special_tokens=False).ids]


def stored(begin: Sequence[int], separator: int) -> tuple[int, ...]:
    """The part of a beginning that a packed document carries itself.

    Nothing where the separator is the beginning: the separator of one document then begins the next document.
    """
    return () if tuple(begin) == (separator,) else tuple(begin)


def stride(stream: Stream, sequence: int) -> int:
    """Returns the number of tokens between two windows: `sequence` without the place of the beginning.

    Raises:
        BuildError: A window has no place for more than the beginning.
    """
    room = sequence - len(stream.begin)
    if room < 1:
        raise BuildError(
            f"a sequence of {sequence} tokens has no room for text: each begins with {len(stream.begin)} tokens "
            "that the tokenizer puts in front",
            hint="set a larger sequence in the recipe",
        )
    return room


def window(stream: Stream, place: int, sequence: int, beyond: int = 0) -> NDArray[np.int64]:
    """The tokens [sequence + 1 + beyond] of a window and beyond; with a beginning, separators follow the end of the stream."""
    step = stride(stream, sequence)
    start = place * step
    if not stream.begin:
        return stream.read(start, start + sequence + 1 + beyond)
    opened = _opening(stream, start)
    if opened is None:
        parts = [np.asarray(stream.begin, dtype=np.int64), stream.read(start, start + step + 1 + beyond)]
    else:
        parts = [stream.read(opened, opened + sequence + 1 + beyond)]
    short = sequence + 1 + beyond - sum(map(len, parts))
    return np.concatenate([*parts, np.full(short, stream.separator, dtype=np.int64)])


def _opening(stream: Stream, start: int) -> int | None:
    """Where the document's beginning starts that a window starts in; None if it starts inside a document's text."""
    size = len(stream.begin)
    own = stored(stream.begin, stream.separator)
    for first in range(start, max(-1, start - size), -1):
        if tuple(stream.read(first, first + size).tolist()) != stream.begin:
            continue
        if not own or first == 0 or stream.read(first - 1, first)[0] == stream.separator:
            return first
    return None


def openings(rows: torch.Tensor, begin: Sequence[int], separator: int) -> torch.Tensor:
    """[rows, length] true where a document begins: at the first token of its beginning, or at the separator before it."""
    import torch

    own = stored(begin, separator)
    if not own:
        return rows == separator
    length = rows.shape[1]
    found = torch.ones_like(rows, dtype=torch.bool)
    for place, token in enumerate(own):
        ahead = torch.zeros_like(found)
        ahead[:, : length - place] = rows[:, place:] == token
        found &= ahead
    found[:, 1:] &= rows[:, :-1] == separator
    return found


def asked(rows: torch.Tensor, begin: Sequence[int], separator: int) -> torch.Tensor:
    """The targets [rows, length] of windows [rows, length + 1]: `IGNORED` where the target is a beginning.

    The first token after a window's own beginning is no target either: the window may be cut inside a document.
    """
    import torch

    from colbuild.train.batch import IGNORED

    targets = rows[:, 1:].contiguous()
    if not begin:
        return targets
    own = stored(begin, separator)
    unasked = torch.zeros_like(rows, dtype=torch.bool)
    if own:
        opened = openings(rows, begin, separator)
        for place in range(len(own)):
            unasked[:, place:] |= opened[:, : rows.shape[1] - place]
    unasked[:, : len(begin) + 1] = True
    return targets.masked_fill(unasked[:, 1:], IGNORED)


def with_beginning(begin: Sequence[int], ids: NDArray[Any]) -> NDArray[np.int64]:
    """Token ids after a beginning."""
    return np.concatenate([np.asarray(begin, dtype=np.int64), np.asarray(ids, dtype=np.int64)])
