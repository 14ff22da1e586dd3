"""What tokens spell: every byte of a text, in order, whatever the kind of tokenizer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colbuild.errors import BuildError
from colbuild.train.across.spelling import NOWHERE, characters, read_spelling, spelling_of
from tests.helpers.tiny import SEPARATOR
from tests.train.small_tokenizers import by_words, byte_level, composing, falling_back, lowering

SPELLINGS = {
    "byte-level": spelling_of(byte_level(400)),
    "with a space before": spelling_of(byte_level(400, prefix=True)),
    "byte fallback": spelling_of(falling_back(500)),
}


@pytest.mark.parametrize("kind", SPELLINGS)
@settings(max_examples=60, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁"), max_size=40))
def test_tokens_spell_the_text_byte_for_byte(kind, text):
    spelling = SPELLINGS[kind]
    ids, ends = spelling.cut(text)
    assert len(ids) == len(ends)
    if len(ids):
        assert ends[-1] == len(text.encode())
    assert list(ends) == sorted(ends)
    spelled = spelling.spell(ids.tolist())
    assert spelled in (text.encode(), b" " + text.encode())
    assert spelling.prefixed or spelled == text.encode()


def test_a_space_that_the_text_does_not_have_counts_for_nothing():
    for kind in ("with a space before", "byte fallback"):
        spelling = SPELLINGS[kind]
        assert spelling.prefixed
        ids, ends = spelling.cut("Ada")
        assert spelling.spell(ids.tolist()) == b" Ada"
        assert ends[-1] == 3
    assert not SPELLINGS["byte-level"].prefixed


def test_bytes_of_an_unknown_character_are_tokens_of_a_byte_each():
    spelling = SPELLINGS["byte fallback"]
    ids, ends = spelling.cut("東")
    assert [spelling.spelled[index] for index in ids[-3:]] == [b"\xe6", b"\x9d", b"\xb1"]
    assert list(ends[-3:]) == [1, 2, 3]


def test_special_tokens_spell_nothing():
    spelling = SPELLINGS["byte-level"]
    assert spelling.spelled[spelling.special[SEPARATOR]] is None
    assert spelling.lengths[spelling.special[SEPARATOR]] == 0


def test_a_normalised_text_is_cut_where_the_given_one_is():
    spelling = spelling_of(composing(400))
    text = "ae\u0301 b"  # the accent is a character of its own: 3 bytes for what is 2 when composed
    ids, ends = spelling.cut(text)
    assert spelling.spell(ids.tolist()) == "aé b".encode()
    assert ends[-1] == len(text.encode())
    # No token may end between the letter and its accent.
    assert 2 not in ends[ends != NOWHERE]


@pytest.mark.parametrize("make", [by_words])
def test_a_tokenizer_that_loses_text_is_refused_with_the_text(make):
    with pytest.raises(BuildError) as caught:
        spelling_of(make(), "the tokenizer in ./words")
    assert "the tokenizer in ./words cannot round-trip a text: 'The café" in caught.value.message
    assert "tokenizer: {train: 16k}" in caught.value.hint


def test_one_that_normalises_is_not_refused_for_that():
    assert spelling_of(lowering(400)).by_bytes


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(BuildError, match=r"tokenizer\.json cannot be read"):
        read_spelling(tmp_path)


@given(text=st.text(max_size=12), data=st.data())
def test_whole_characters_are_found_in_any_cut(text, data):
    raw = text.encode("utf-8", "ignore")
    start = data.draw(st.integers(0, len(raw)))
    stop = data.draw(st.integers(start, len(raw)))
    first, last = characters(raw[start:stop], begins=start == 0, ends=stop == len(raw))
    found = raw[start:stop][first:last].decode()
    # Nothing whole is lost: at most three bytes at either end.
    assert first <= 3
    assert stop - start - last <= 3
    assert found in raw.decode()


def test_the_longest_token_that_a_text_begins_with():
    spelling = SPELLINGS["byte-level"]
    longest = max(spelling.by_bytes, key=len)
    assert spelling.prefix(longest + b"\xff") == spelling.by_bytes[longest]
    assert spelling.prefix(b"") is None
    assert np.all(spelling.lengths <= spelling.longest)
