"""The same text in two models' tokens, and where the two stand together."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from colbuild.errors import BuildError
from colbuild.train.across.aligned_text import Reader, cross
from colbuild.train.across.spelling import spelling_of
from colbuild.train.batch import IGNORED, Batch
from colbuild.train.corpus.text_beginning import asked, openings, stored, window
from tests.helpers.tiny import SEPARATOR, tiny_documents
from tests.train.small_tokenizers import byte_level, falling_back


def reader(tokenizer):
    spelling = spelling_of(tokenizer)
    return Reader(spelling, spelling.special[SEPARATOR])


FINE, COARSE, FALLBACK = reader(byte_level(300)), reader(byte_level(600)), reader(falling_back(500))


def packed(documents, one, sequence, *, apart=False, skip=0):
    """A batch of packed documents, as `read_windows` makes it."""
    ids = [one.separator]
    for document in documents:
        ids += [*one.spelling.cut(document)[0].tolist(), one.separator]
    ids = ids[skip:]
    rows = torch.tensor([ids[at : at + sequence + 1] for at in range(0, len(ids) - sequence - 1, sequence)])
    tokens, targets = rows[:, :-1].contiguous(), rows[:, 1:].contiguous()
    begins = tokens == one.separator
    if apart:
        return Batch(tokens, targets, tuple(range(len(rows))), begins.cumsum(dim=1, dtype=torch.int32))
    return Batch(tokens, targets.masked_fill(begins, IGNORED), tuple(range(len(rows))))


def read_before(side, ids, place):
    """What has been read up to and including a place: text, separators as a line each."""
    return b"".join(
        b"\n" if index == side.separator else side.spelling.spelled[index] or b"" for index in ids[: place + 1]
    )


@pytest.mark.parametrize("pair", [(FINE, COARSE), (COARSE, FINE), (COARSE, FALLBACK), (FALLBACK, FINE)])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), sequence=st.integers(4, 40), skip=st.integers(0, 9))
def test_where_the_two_stand_together_they_have_read_the_same(pair, seed, sequence, skip):
    student, teacher = pair
    batch = packed(tiny_documents(3, seed), student, sequence, skip=skip)
    found = cross(batch, student, teacher, 10_000)
    width, length = batch.tokens.shape[1], found.tokens.shape[1]
    assert len(found.student) > 0
    for ours, theirs in zip(found.student.tolist(), found.teacher.tolist(), strict=True):
        row = ours // width
        assert row == theirs // length
        one = read_before(student, batch.tokens[row].tolist(), ours % width)
        other = read_before(teacher, found.tokens[row].tolist(), theirs % length)
        # A row may begin within a character, which the teacher cannot read; a space before a text is no text.
        assert one.replace(b" ", b"").endswith(other.replace(b" ", b""))


def test_with_itself_every_place_is_shared_and_every_chunk_is_a_token():
    batch = packed(tiny_documents(4), COARSE, 24)
    found = cross(batch, COARSE, COARSE, 10_000)
    asked = batch.targets != IGNORED
    assert torch.equal(found.tokens, batch.tokens)
    assert torch.equal(found.targets[asked], batch.targets[asked])
    assert torch.equal(found.student, torch.arange(batch.tokens.numel()))
    assert torch.equal(found.student, found.teacher)
    assert torch.equal(found.chunks, torch.ones_like(found.chunks))


def test_chunks_lead_from_place_to_place():
    batch = packed(tiny_documents(4), FINE, 30)
    found = cross(batch, FINE, COARSE, 10_000)
    width = batch.tokens.shape[1]
    for at in range(len(found.student) - 1):
        if found.student[at] // width == found.student[at + 1] // width:
            assert found.student[at] + found.chunks[at, 0] == found.student[at + 1]
            assert found.teacher[at] + found.chunks[at, 1] == found.teacher[at + 1]
    assert (found.chunks >= 0).all()
    # The finer side takes more tokens to the same place.
    assert found.chunks[:, 0].sum() > found.chunks[:, 1].sum()


def test_documents_that_do_not_see_each_other_do_not_on_the_other_side_either():
    batch = packed(tiny_documents(6), FINE, 40, apart=True)
    found = cross(batch, FINE, COARSE, 10_000)
    begins = (found.tokens == COARSE.separator).cumsum(dim=1)
    assert torch.equal(found.documents, begins.int())


def test_a_row_that_is_too_long_for_the_teacher_is_refused():
    batch = packed(tiny_documents(3), COARSE, 40)
    with pytest.raises(BuildError, match="tokens long for the AnsNet, which has 16 positions"):
        cross(batch, COARSE, FINE, 16)


def test_it_moves_to_a_device_as_a_whole():
    found = cross(packed(tiny_documents(3), FINE, 20, apart=True), FINE, COARSE, 10_000)
    moved = found.to(torch.device("meta"))
    assert {tensor.device.type for tensor in vars(moved).values()} == {"meta"}
    assert np.array_equal(found.chunks.shape, moved.chunks.shape)


# -- texts that begin with a token of their own -----------------------------------------------------------------------


def begun(one):
    """The same reader with a beginning."""
    find = one.spelling.tokenizer.token_to_id
    return replace(one, begin=(find("!") or find("<0x21>"),))


def packed_and_begun(documents, one, sequence, *, apart=False):
    """A batch as `read_windows` makes it of packed documents, each with the beginning in front."""
    ids = []
    for document in documents:
        ids += [*stored(one.begin, one.separator), *one.spelling.cut(document)[0].tolist(), one.separator]
    stream = Packed(one.separator, one.begin, np.asarray(ids))
    rows = torch.from_numpy(np.stack([window(stream, at, sequence) for at in range(len(ids) // sequence)]))
    tokens, targets = rows[:, :-1].contiguous(), asked(rows, one.begin, one.separator)
    opens = openings(tokens, one.begin, one.separator)
    if apart:
        return Batch(tokens, targets, tuple(range(len(rows))), opens.cumsum(dim=1, dtype=torch.int32))
    return Batch(tokens, targets.masked_fill(opens, IGNORED), tuple(range(len(rows))))


@dataclass(frozen=True)
class Packed:
    separator: int
    begin: tuple[int, ...]
    ids: np.ndarray

    @property
    def tokens(self):
        return len(self.ids)

    def read(self, start, stop):
        return self.ids[start:stop]


def text_before(side, ids, place):
    """What a side has read: separators as a line each, beginnings as nothing."""
    text = [b"\n" if index == side.separator else side.spelling.spelled[index] or b"" for index in ids[: place + 1]]
    opened = openings(torch.tensor([ids]), side.begin, side.separator)[0].tolist() if side.begin else []
    dropped = [True] if side.begin == (side.separator,) else opened
    return b"".join(b"" if at < len(dropped) and dropped[at] else piece for at, piece in enumerate(text))


BEGINNINGS = [
    (begun(FINE), COARSE),
    (FINE, begun(COARSE)),
    (begun(COARSE), begun(FALLBACK)),
    (replace(FINE, begin=(FINE.separator,)), begun(COARSE)),
    (begun(FALLBACK), replace(FINE, begin=(FINE.separator,))),
]


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("pair", BEGINNINGS, ids=["student", "teacher", "both", "separator", "to separator"])
def test_each_side_begins_texts_by_its_own_rule(pair, apart):
    student, teacher = pair
    documents = [document.replace("!", "?") for document in tiny_documents(5)]
    batch = packed_and_begun(documents, student, 40, apart=apart)
    found = cross(batch, student, teacher, 10_000)
    width, length = batch.tokens.shape[1], found.tokens.shape[1]
    assert len(found.student) > 20
    for ours, theirs in zip(found.student.tolist(), found.teacher.tolist(), strict=True):
        row = ours // width
        assert row == theirs // length
        one = text_before(student, batch.tokens[row].tolist(), ours % width)
        other = text_before(teacher, found.tokens[row].tolist(), theirs % length)
        assert one.replace(b" ", b"").endswith(other.replace(b" ", b""))
        # At a shared place the next token is text or a separator on both sides, never a beginning.
        if stored(teacher.begin, teacher.separator):
            assert found.targets.flatten()[theirs] != teacher.begin[0]
    if teacher.begin:
        assert bool((found.tokens[:, 0] == teacher.begin[0]).all())
        assert bool((found.targets[:, : len(teacher.begin) - 1] == IGNORED).all())
    if apart:
        expected = openings(found.tokens, teacher.begin, teacher.separator).cumsum(dim=1)
        assert torch.equal(found.documents, expected.int())
    # A chunk counts text and separators alone.
    for side, at, column in ((student, found.student, 0), (teacher, found.teacher, 1)):
        rows = batch.tokens if column == 0 else found.tokens
        flat = rows.flatten().tolist()
        per_row = rows.shape[1]
        begins = set(side.begin) if stored(side.begin, side.separator) else set()
        for index in range(len(at) - 1):
            first, last = int(at[index]), int(at[index + 1])
            if first // per_row == last // per_row:
                between = [token for token in flat[first + 1 : last + 1] if token not in begins]
                assert int(found.chunks[index, column]) == len(between)
