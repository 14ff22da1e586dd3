"""Text that is decoded while its tokens still come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from colbuild.export.runtime.text import stream_text
from tests.helpers.tiny import make_tiny_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    make_tiny_tokenizer(folder)
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def test_characters_of_several_tokens_come_whole(tokenizer: Tokenizer):
    text = "Zürich, 東京 and 🗼🇩🇰 in one line"
    ids = tokenizer.encode(text).ids
    pieces = list(stream_text(tokenizer, ids))
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)
    assert len(text) // 4 < len(pieces) < len(ids)


def test_text_comes_as_soon_as_it_is_whole(tokenizer: Tokenizer):
    told: list[int] = []

    def tokens():
        for place, token in enumerate(tokenizer.encode("Ada builds").ids):
            told.append(place)
            yield token

    pieces = stream_text(tokenizer, tokens())
    next(pieces)
    assert told == [0]


def test_an_unfinished_character_is_told_at_the_end(tokenizer: Tokenizer):
    ids = tokenizer.encode("東").ids
    assert len(ids) > 1
    assert "".join(stream_text(tokenizer, ids[:-1])) == tokenizer.decode(ids[:-1])


@given(st.text())
def test_pieces_joined_are_the_whole_text(tokenizer: Tokenizer, text: str):
    ids = tokenizer.encode(text).ids
    assert "".join(stream_text(tokenizer, ids)) == tokenizer.decode(ids)
