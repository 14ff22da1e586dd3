"""Windows of a packed corpus: which ones a training step, a calibration or an evaluation reads, and their text.

Importing this module imports no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from colbuild.errors import BuildError
from colbuild.train.corpus.text_beginning import asked, openings, stored, stride, window, with_beginning

if TYPE_CHECKING:
    import torch

    from colbuild.train.batch import Batch
from colbuild.train.corpus.packing import PackedCorpus

_ROUNDS: Final = 4


@dataclass(frozen=True, eq=False)
class EvaluationWindow:
    """A stretch of one document to score.

    Attributes:
        inputs: Token ids [length]: what the model sees.
        targets: Token ids [at most length]: what it is asked for at its last places.
        bytes: How many UTF-8 bytes of text the targets stand for; exact in the sum over a document's windows.
    """

    inputs: torch.Tensor
    targets: torch.Tensor
    bytes: int


def training_windows(corpus: PackedCorpus, *, seed: int, step: int, batch: int, sequence: int) -> tuple[int, ...]:
    """Which windows one training step reads: a function of the corpus, the seed and the step only.

    The stream is cut into windows that share one token with the next, so each token is predicted once. Every epoch
    passes over all of them once, in an order of its own; a batch may span two epochs. Nothing is stored between steps,
    so training can go on anywhere. Which sequences a training reads follows from the seed, not from how they are batched.

    Raises:
        BuildError: The corpus has fewer tokens than one window.
    """
    count = window_count(corpus, sequence)
    first = step * batch
    return tuple(_permuted(place % count, count, f"{seed}:{place // count}") for place in range(first, first + batch))


def read_windows(corpus: PackedCorpus, windows: Sequence[int], sequence: int, *, apart: bool) -> Batch:
    """The text of some windows.

    A document begins with the tokens that the tokenizer puts in front of a text, or else with the separator before it: that
    stands for the beginning of a text, as it does when a model is evaluated. With `apart` the documents of a sequence do not
    see each other, so this tells nothing of the text before it. Without, it does, and nothing is asked of it: what follows is
    another document's. Nor is a beginning itself asked for, nor what follows one that was put in front of a document's middle.

    Args:
        corpus: Where they are.
        windows: Their numbers.
        sequence: Tokens in each.
        apart: Whether the documents of a sequence see each other.
    """
    return as_batch(corpus, _windows(corpus, windows, sequence), windows, apart=apart)


def as_batch(corpus: PackedCorpus, rows: torch.Tensor, windows: Sequence[int], *, apart: bool) -> Batch:
    """Rows [rows, sequence + 1] of text as `read_windows` makes a batch of them."""
    import torch

    from colbuild.train.batch import IGNORED, Batch

    tokens, targets = rows[:, :-1].contiguous(), asked(rows, corpus.begin, corpus.separator)
    begins = openings(tokens, corpus.begin, corpus.separator)
    if apart:
        return Batch(tokens, targets, tuple(windows), begins.cumsum(dim=1, dtype=torch.int32))
    follows = begins.roll(len(corpus.begin) - 1, dims=1) if len(corpus.begin) > 1 else begins
    return Batch(tokens, targets.masked_fill(follows, IGNORED), tuple(windows))


def window_count(corpus: PackedCorpus, sequence: int) -> int:
    """How many windows of `sequence` predictions the corpus has.

    Raises:
        BuildError: It has fewer tokens than one.
    """
    count = (corpus.tokens - 1) // stride(corpus, sequence)
    if count < 1:
        raise BuildError(
            f"the {corpus.split} split of the corpus has {corpus.tokens:,} tokens, "
            f"too few for one window of {sequence + 1:,}",
            hint="give more text (a higher 'limit'), or a smaller 'sequence' in the recipe",
        )
    return count


def calibration_windows(corpus: PackedCorpus, tokens: int, sequence: int) -> torch.Tensor:
    """Windows [windows, sequence + 1] for about `tokens` predictions, spread evenly over the corpus; always the same.

    There is at least one, and there are no more than the corpus has.

    Raises:
        BuildError: The corpus has fewer tokens than one window.
    """
    available = window_count(corpus, sequence)
    count = min(max(1, tokens // sequence), available)
    return _windows(corpus, [place * available // count for place in range(count)], sequence)


def choice_windows(corpus: PackedCorpus, tokens: int, sequence: int) -> torch.Tensor:
    """Windows [windows, sequence + 1] for `tokens` predictions or a few more, to choose among models: always the same.

    They are spread evenly over the last quarter of the corpus, or over as much of its end as they take: an evaluation reads
    documents from the start, so that it tells of other text than a choice was made on, where there is enough.

    Raises:
        BuildError: The corpus has fewer tokens than one window.
    """
    available = window_count(corpus, sequence)
    first, count = _choice(available, tokens, sequence)
    return _windows(corpus, [first + place * (available - first) // count for place in range(count)], sequence)


def windows_before_choice(corpus: PackedCorpus, tokens: int, sequence: int, wanted: int) -> torch.Tensor:
    """Windows [windows, sequence + 1] for at most about `wanted` predictions, from before the text of `choice_windows`.

    There are none where the choice takes the whole corpus.

    Raises:
        BuildError: The corpus has fewer tokens than one window.
    """
    available = window_count(corpus, sequence)
    before, _ = _choice(available, tokens, sequence)
    count = min(max(1, wanted // sequence), before)
    return _windows(corpus, [place * before // count for place in range(count)], sequence)


def _choice(available: int, tokens: int, sequence: int) -> tuple[int, int]:
    """(the first window that a choice may take, how many it takes)."""
    count = min(-(-tokens // sequence), available)
    return min(available * 3 // 4, available - count), count


def evaluation_documents(corpus: PackedCorpus, tokens: int, context: int) -> tuple[EvaluationWindow, ...]:
    """The documents from the start of the corpus, as windows to score, until at least `tokens` tokens are in them.

    Every token of them is a target exactly once; separators and beginnings are not, since no text stands for them. A
    document's first token is predicted from its beginning or else from the separator, every other from up to `context` tokens
    before it in its window, the beginning among them. A long document is left after the part that reaches `tokens`, whose
    bytes are known, so bits per byte are exact and the work is bounded.

    Args:
        corpus: What to measure on.
        tokens: How many targets are enough.
        context: How many tokens a window has at most.
    """
    import torch

    windows = []
    scored = 0
    room = stride(corpus, context)
    for part in _parts(corpus):
        start, stop, size = part.start, part.stop, part.size
        for first in range(start, stop, room):
            last = min(first + room, stop)
            ids = torch.from_numpy(np.concatenate([_before(corpus, part, first), corpus.read(first, last)]))
            share = size * (last - start) // (stop - start) - size * (first - start) // (stop - start)
            windows.append(EvaluationWindow(ids[:-1], ids[first - last :], share))
        scored += stop - start
        if scored >= tokens:
            break
    return tuple(windows)


@dataclass(frozen=True)
class _Part:
    """A part of a document: [start, stop) in the stream, its UTF-8 bytes, and whether the document begins with it."""

    start: int
    stop: int
    size: int
    opens: bool


def _before(corpus: PackedCorpus, part: _Part, first: int) -> NDArray[np.int64]:
    """The tokens that stand before a stretch of a part."""
    opens = part.opens and first == part.start
    if opens:
        return np.asarray(corpus.begin or (corpus.separator,), dtype=np.int64)
    return with_beginning(corpus.begin, corpus.read(first - 1, first))


def _parts(corpus: PackedCorpus) -> Iterator[_Part]:
    """Each part; separators, and the beginnings that documents carry, stand between them."""
    offset, own = 0, len(stored(corpus.begin, corpus.separator))
    for stream in corpus.streams:
        rows, before = len(stream.index), -1
        for row in range(rows):
            start, size, document = (int(value) for value in stream.index[row])
            # A document's last part is followed by the separator and the next document's beginning.
            stop = len(stream.ids) - 1
            if row + 1 < rows:
                following, _, other = (int(value) for value in stream.index[row + 1])
                stop = following if other == document else following - 1 - own
            yield _Part(offset + start, offset + stop, size, document != before)
            before = document
        offset += len(stream.ids)


def _windows(corpus: PackedCorpus, places: Sequence[int], sequence: int) -> torch.Tensor:
    import torch

    rows = [window(corpus, place, sequence) for place in places]
    return torch.from_numpy(np.stack(rows) if rows else np.empty((0, sequence + 1), dtype=np.int64))


def _permuted(place: int, count: int, key: str) -> int:
    """Where a keyed permutation of range(count) puts `place`: a Feistel network, walked until it falls into the range.

    A shuffled list would be as good, but would have to be made anew at every start, and is large for a large corpus.
    """
    half = max(1, ((count - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:
        left, right = place >> half, place & mask
        for turn in range(_ROUNDS):
            digest = hashlib.sha256(f"{key}:{turn}:{right}".encode()).digest()
            left, right = right, left ^ (int.from_bytes(digest[:8], "big") & mask)
        place = left << half | right
        if place < count:
            return place
