"""The same text as two models read it: a student's batch, what its teacher reads of it, and where the two stand together.

::

    student    [.] The| caf|é|[.]          both have read the same bytes after "The" and after "é": there their
    teacher    [.] Th|e| ca|fé|[.]         distributions can be compared, and between the two what a chunk is worth

A separator stands for itself on either side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from colbuild.errors import BuildError
from colbuild.train.batch import IGNORED, Batch
from colbuild.train.spelling import NOWHERE, Spelling, characters

Ids = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Reader:
    """How one side reads.

    Attributes:
        spelling: Its tokenizer.
        separator: The id that stands before and after each document.
    """

    spelling: Spelling
    separator: int


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
    """What a teacher with another tokenizer reads of a batch.

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
        count = max(0, len(row.ids) - 1)
        tokens[index, :count] = torch.from_numpy(row.ids[:count])
        targets[index, :count] = torch.from_numpy(row.ids[1:])
    documents = None
    if batch.documents is not None:
        documents = (tokens == teacher.separator).cumsum(dim=1, dtype=torch.int32)
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
    student: Ids
    teacher: Ids
    chunks: Ids


def _cross_row(row: Ids, student: Reader, teacher: Reader) -> _Row:
    """One row [sequence + 1] of the student's."""
    parts: list[_Segment] = []
    bounds = [-1, *np.flatnonzero(row == student.separator).tolist(), len(row)]
    for before, after in pairwise(bounds):
        parts.append(_segment(row[before + 1 : after], before >= 0, after < len(row), student, teacher))
        if after < len(row):
            parts.append(_Segment(np.asarray([teacher.separator]), np.asarray([1]), np.asarray([1]), 1))
    starts = np.cumsum([0, *(part.size for part in parts)])
    pairs = list(zip(starts[:-1].tolist(), parts, strict=True))
    ours = np.concatenate([part.student + start for start, part in pairs])
    theirs = np.concatenate([np.where(part.teacher == NOWHERE, NOWHERE, part.teacher + start) for start, part in pairs])
    _, student_at, teacher_at = np.intersect1d(ours, theirs, return_indices=True)
    chunks = np.zeros((len(student_at), 2), dtype=np.int64)
    chunks[:-1, 0], chunks[:-1, 1] = np.diff(student_at), np.diff(teacher_at)
    # The last token of either side is no position: nothing follows it.
    kept = (student_at < len(ours) - 1) & (teacher_at < len(theirs) - 1)
    ids = np.concatenate([part.ids for part in parts])
    return _Row(ids, student_at[kept], teacher_at[kept], chunks[kept])


@dataclass(frozen=True, eq=False)
class _Segment:
    """A document of a row, or a separator: the teacher's tokens, where each side's end, and its bytes."""

    ids: Ids
    student: Ids
    teacher: Ids
    size: int


def _segment(tokens: Ids, begins: bool, ends: bool, student: Reader, teacher: Reader) -> _Segment:
    """The tokens of one document in a row; it begins, or ends, there if a separator does it."""
    text = student.spelling.spell(tokens.tolist())
    places = np.cumsum(student.spelling.lengths[tokens])
    if begins and student.spelling.prefixed and text.startswith(b" "):
        text, places = text[1:], places - 1
    first, last = characters(text, begins=begins, ends=ends)
    ids, cuts = teacher.spelling.cut(text[first:last].decode(errors="replace"))
    return _Segment(ids, places, np.where(cuts == NOWHERE, NOWHERE, cuts + first), len(text))


def _joined(parts: Sequence[Ids]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(parts))
