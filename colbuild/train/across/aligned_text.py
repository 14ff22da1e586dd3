"""The same text for two models: a student's batch, its teacher's tokens, and the places where both agree.

::

    student    [.] The| caf|é|[.]          both have read the same bytes after "The" and after "é": there their
    teacher    [.] Th|e| ca|fé|[.]         distributions can be compared, and between the two what a chunk is worth

A separator stands for itself on either side. Where a side's tokenizer puts tokens in front of a text, its documents and rows
begin with these: the text after a separator is expected at the last of them, and they belong to no chunk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from colbuild.errors import BuildError
from colbuild.train.across.spelling import NOWHERE, Spelling, characters
from colbuild.train.batch import IGNORED, Batch
from colbuild.train.corpus.text_beginning import openings, stored

Ids = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Reader:
    """One side's reading of text.

    Attributes:
        spelling: Its tokenizer.
        separator: The id that stands before and after each document.
        begin: The ids that the tokenizer puts in front of every text.
    """

    spelling: Spelling
    separator: int
    begin: tuple[int, ...] = ()

    @property
    def opening(self) -> tuple[int, ...]:
        """The ids between a separator and the document after it."""
        return stored(self.begin, self.separator)


@dataclass(frozen=True, eq=False)
class Crossing:
    """A batch on both sides. Positions count through the flattened rows of their side.

    Attributes:
        tokens: What the teacher reads [rows, length]; short rows are filled up with its separator.
        targets: The token after each, or `IGNORED`.
        documents: As in `Batch`, for the teacher.
        student: [places] positions at which the student has read what the teacher has read at `teacher`.
        teacher: [places].
        chunks: [places, 2] how many tokens the student and the teacher take to the next place; 0 where there is none.
    """

    tokens: torch.Tensor
    targets: torch.Tensor
    documents: torch.Tensor | None
    student: torch.Tensor
    teacher: torch.Tensor
    chunks: torch.Tensor

    def to(self, device: torch.device) -> Crossing:
        """The same on a device."""
        documents = None if self.documents is None else self.documents.to(device)
        every = (self.tokens, self.targets, self.student, self.teacher, self.chunks)
        tokens, targets, student, teacher, chunks = (tensor.to(device) for tensor in every)
        return Crossing(tokens, targets, documents, student, teacher, chunks)


def cross(batch: Batch, student: Reader, teacher: Reader, positions: int) -> Crossing:
    """Returns a batch in the tokens of a teacher with another tokenizer.

    Args:
        batch: The student's.
        student: How the student reads.
        teacher: How the teacher does.
        positions: The longest row that the teacher can read.

    Raises:
        BuildError: A row is longer for the teacher than it has positions.
    """
    last = torch.where(batch.targets == IGNORED, student.separator, batch.targets)[:, -1:]
    whole = torch.cat([batch.tokens, last], dim=1).cpu().numpy()
    rows = [_cross_row(row, student, teacher) for row in whole]
    length = max(1, *(len(row.ids) - 1 for row in rows))
    if length > positions:
        raise BuildError(
            f"a sequence of {batch.tokens.shape[1]} tokens is {length} tokens long for the AnsNet, which has {positions} "
            "positions",
            hint="set a smaller sequence in the bridge's recipe",
        )
    tokens = torch.full((len(rows), length), teacher.separator)
    targets = torch.full((len(rows), length), IGNORED)
    for index, row in enumerate(rows):
        count = len(row.targets)
        tokens[index, :count] = torch.from_numpy(row.ids[:count])
        targets[index, :count] = torch.from_numpy(row.targets)
    documents = None
    if batch.documents is not None:
        documents = openings(tokens, teacher.begin, teacher.separator).cumsum(dim=1, dtype=torch.int32)
    width = batch.tokens.shape[1]
    return Crossing(
        tokens,
        targets,
        documents,
        _joined([row.student + index * width for index, row in enumerate(rows)]),
        _joined([row.teacher + index * length for index, row in enumerate(rows)]),
        _joined([row.chunks for row in rows]).view(-1, 2),
    )


@dataclass(frozen=True, eq=False)
class _Row:
    ids: Ids
    targets: Ids
    student: Ids
    teacher: Ids
    chunks: Ids


@dataclass(frozen=True, eq=False)
class _Side:
    """One side's tokens of a part of a row.

    Attributes:
        ids: Token ids.
        ends: Bytes of the part that have been read at each, or `NOWHERE`.
        added: Whether each is of a beginning, which no text stands for.
    """

    ids: Ids
    ends: Ids
    added: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class _Part:
    """A document of a row, or what stands between two: both sides, and its bytes."""

    student: _Side
    teacher: _Side
    size: int


def _cross_row(row: Ids, student: Reader, teacher: Reader) -> _Row:
    """One row [sequence + 1] of the student's."""
    parts = list(_parts(row, student, teacher))
    starts = np.cumsum([0, *(part.size for part in parts)])
    ours, theirs = (
        _whole([getattr(part, side) for part in parts], starts[:-1].tolist()) for side in ("student", "teacher")
    )
    shared = np.intersect1d(ours.ends[ours.ends != NOWHERE], theirs.ends[theirs.ends != NOWHERE])
    student_at, teacher_at = (_last(side.ends, shared) for side in (ours, theirs))
    chunks = np.zeros((len(shared), 2), dtype=np.int64)
    for column, (side, at) in enumerate(((ours, student_at), (theirs, teacher_at))):
        chunks[:-1, column] = np.diff(np.cumsum(~side.added)[at])
    # The last token of either side is no position: nothing follows it.
    kept = (student_at < len(ours.ids) - 1) & (teacher_at < len(theirs.ids) - 1)
    targets = np.where(theirs.added, IGNORED, theirs.ids)[1:]
    return _Row(theirs.ids, targets, student_at[kept], teacher_at[kept], chunks[kept])


def _whole(sides: Sequence[_Side], starts: Sequence[int]) -> _Side:
    """The parts of one side, one after the other; ends count from the beginning of the row."""
    ends = [
        np.where(side.ends == NOWHERE, NOWHERE, side.ends + start) for side, start in zip(sides, starts, strict=True)
    ]
    ids, added = (np.concatenate([getattr(side, name) for side in sides]) for name in ("ids", "added"))
    return _Side(ids, np.concatenate(ends), added)


def _last(ends: Ids, shared: Ids) -> Ids:
    """The last position at which each of these ends is reached."""
    backwards = ends[::-1]
    found, at = np.unique(backwards, return_index=True)
    places: Ids = len(ends) - 1 - at[np.searchsorted(found, shared)]
    return places


def _parts(row: Ids, student: Reader, teacher: Reader) -> Iterator[_Part]:
    """A row in documents and what stands between them; the student's own beginning of a document goes with the separator."""
    front = len(student.begin) if tuple(row[: len(student.begin)].tolist()) == student.begin else 0
    if front or teacher.begin:
        yield _Part(_marks((), row[:front]), _marks((), teacher.begin), 0)
    at = front
    for place in [*np.flatnonzero(row == student.separator).tolist(), len(row)]:
        if place < at:
            continue  # the separator is the row's own beginning
        yield _document(row[at:place], at > front, place < len(row), student, teacher)
        if place == len(row):
            return
        at = place + 1
        size = len(student.opening)
        opens = tuple(row[at : at + size].tolist()) == student.opening[: len(row) - at]
        after = row[at : at + size] if opens else row[at:at]
        yield _Part(_marks(row[place:at], after), _marks((teacher.separator,), teacher.opening), 1)
        at += len(after)


def _marks(separator: Sequence[int] | Ids, begin: Sequence[int] | Ids) -> _Side:
    """A separator, if there is one, and the beginning after it. All is read at the last of them."""
    ids = np.asarray([*separator, *begin], dtype=np.int64)
    ends = np.full(len(ids), NOWHERE)
    ends[-1:] = len(separator)
    return _Side(ids, ends, np.arange(len(ids)) >= len(separator))


def _document(tokens: Ids, begins: bool, ends: bool, student: Reader, teacher: Reader) -> _Part:
    """The tokens of one document in a row; it begins, or ends, there if a separator does it."""
    text = student.spelling.spell(tokens.tolist())
    places = np.cumsum(student.spelling.lengths[tokens])
    if begins and student.spelling.prefixed and text.startswith(b" "):
        text, places = text[1:], places - 1
    first, last = characters(text, begins=begins, ends=ends)
    ids, cuts = teacher.spelling.cut(text[first:last].decode(errors="replace"))
    cuts = np.where(cuts == NOWHERE, NOWHERE, cuts + first)
    return _Part(_text(tokens, places), _text(ids, cuts), len(text))


def _text(ids: Ids, ends: Ids) -> _Side:
    return _Side(ids, ends, np.zeros(len(ids), dtype=np.bool_))


def _joined(parts: Sequence[Ids]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(parts))
