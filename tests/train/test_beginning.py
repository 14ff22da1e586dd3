"""Texts that begin with what their tokenizer puts in front of them (BOS): packed, cut into windows, and measured."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
import torch

from colbuild.errors import BuildError
from colbuild.ops.corpus.tokens import load_vocabulary
from colbuild.train.batch import IGNORED
from colbuild.train.corpus.packing import open_corpus
from colbuild.train.corpus.text_beginning import asked, text_ids
from colbuild.train.corpus.text_windows import (
    calibration_windows,
    evaluation_documents,
    read_windows,
    training_windows,
    window_count,
)
from tests.helpers.beginnings import BOS, beginning_with
from tests.helpers.tiny import SEPARATOR, tiny_documents
from tests.ops.corpus.helpers import build, tokenizer_folder

DOCUMENTS = [*tiny_documents(40), "\n".join(tiny_documents(120, seed=9)), "ö"]


@pytest.fixture(scope="module", params=[BOS, SEPARATOR], ids=["bos", "bos is the separator"])
def packed(request, tmp_path_factory):
    """(corpus folder, vocabulary) of a tokenizer that begins texts with a token."""
    root = tmp_path_factory.mktemp("beginning")
    raw = root / "c.jsonl"
    raw.write_text("".join(json.dumps({"text": text}) + "\n" for text in DOCUMENTS))
    tokenizer = beginning_with(tokenizer_folder(), root / "tokenizer", request.param)
    folder = build(raw, root / "out", tokenizer=tokenizer, format="jsonl", heldout=0.2)
    return folder, load_vocabulary(tokenizer)


def every(packed, split="train"):
    corpus = open_corpus(packed[0], split)
    return corpus, corpus.read(0, corpus.tokens).tolist()


def test_each_document_is_packed_as_the_tokenizer_writes_a_text(packed):
    corpus, stream = every(packed, "all")
    vocabulary = packed[1]
    assert corpus.begin == vocabulary.begin != ()
    same = vocabulary.begin == (vocabulary.separator,)
    whole = {tuple(text_ids(vocabulary.tokenizer, text)[same:]) for text in DOCUMENTS if len(text) < 1 << 14}
    found, document = set(), []
    for token in stream:
        if token == vocabulary.separator:
            found.add(tuple(document))
            document = []
        else:
            document.append(token)
    assert whole <= found
    assert not document


@pytest.mark.parametrize("sequence", [7, 64])
@pytest.mark.parametrize("apart", [True, False])
def test_every_training_sequence_begins_with_it_and_no_target_is_one(packed, sequence, apart):
    corpus, stream = every(packed)
    begin, separator = packed[1].begin, packed[1].separator
    count = window_count(corpus, sequence)
    batch = read_windows(corpus, range(count), sequence, apart=apart)
    assert batch.tokens.shape == batch.targets.shape == (count, sequence)
    assert bool((batch.tokens[:, 0] == begin[0]).all())
    assert bool((batch.targets[:, 0] == IGNORED).all())
    follows = batch.tokens[:, 1:] == batch.targets[:, :-1]
    assert bool((follows | (batch.targets[:, :-1] == IGNORED)).all())
    # What is asked is text, each token of it at most once, and nearly all of it.
    asked_of = Counter(batch.targets[batch.targets != IGNORED].tolist())
    there = Counter(stream[1:])
    if begin != (separator,):
        assert asked_of[begin[0]] == 0
        del there[begin[0]]
    assert sum(asked_of.values()) >= sum(there.values()) * (1 - 3 / sequence) - 2 * corpus.documents


def test_apart_documents_of_a_sequence_begin_at_their_own_beginning(packed):
    corpus, _ = every(packed)
    begin, separator = packed[1].begin, packed[1].separator
    batch = read_windows(corpus, range(window_count(corpus, 64)), 64, apart=True)
    for tokens, documents in zip(batch.tokens.tolist(), batch.documents.tolist(), strict=True):
        for place in range(1, len(tokens)):
            opens = tokens[place] == begin[0] and (begin == (separator,) or tokens[place - 1] == separator)
            assert (documents[place] != documents[place - 1]) == opens


def test_windows_of_an_epoch_are_still_a_function_of_seed_and_step(packed):
    corpus, _ = every(packed)
    count = window_count(corpus, 64)
    ways = {"seed": 3, "batch": 1, "sequence": 64}
    assert sorted(training_windows(corpus, step=step, **ways)[0] for step in range(count)) == list(range(count))


def test_calibration_windows_begin_with_it_too(packed):
    corpus, stream = every(packed)
    windows = calibration_windows(corpus, 10**6, 64)
    begin = packed[1].begin
    assert windows.shape == ((corpus.tokens - 1) // (64 - len(begin)), 65)
    assert bool((windows[:, 0] == begin[0]).all())
    targets = asked(windows, corpus.begin, corpus.separator)
    assert bool((targets[:, 0] == IGNORED).all())
    inside = windows[3, 1:-2].tolist()
    assert any(stream[at : at + len(inside)] == inside for at in range(len(stream)))


def test_evaluation_scores_each_token_of_text_once_after_its_beginning(packed):
    corpus, stream = every(packed, "all")
    begin, separator = packed[1].begin, packed[1].separator
    windows = evaluation_documents(corpus, 10**9, 50)
    scored = [token for window in windows for token in window.targets.tolist()]
    assert scored == [token for token in stream if token not in (*begin, separator)]
    assert sum(window.bytes for window in windows) == sum(len(text.encode()) for text in DOCUMENTS)
    for window in windows:
        inputs, targets = window.inputs.tolist(), window.targets.tolist()
        assert tuple(inputs[: len(begin)]) == begin
        assert len(inputs) <= 50
        assert inputs[len(inputs) - len(targets) + 1 :] == targets[:-1]
        assert separator not in inputs[len(begin) :]


def test_a_sequence_that_has_no_room_for_text_is_refused(packed):
    corpus, _ = every(packed)
    with pytest.raises(BuildError, match="no room for text") as caught:
        calibration_windows(corpus, 64, 1)
    assert caught.value.hint == "set a larger sequence in the recipe"


def test_a_document_moved_to_an_empty_split_keeps_its_beginning(tmp_path):
    tokenizer = beginning_with(tokenizer_folder(), tmp_path / "tokenizer")
    raw = tmp_path / "c.jsonl"
    raw.write_text("".join(json.dumps({"text": text}) + "\n" for text in tiny_documents(3)))
    folder = build(raw, tmp_path / "out", tokenizer=tokenizer, format="jsonl", heldout=1e-9)
    begin = load_vocabulary(tokenizer).begin[0]
    for split in ("train", "heldout"):
        corpus = open_corpus(folder, split)
        assert corpus.read(0, 1).tolist() == [begin]
        assert Counter(corpus.read(0, corpus.tokens).tolist())[begin] == corpus.documents
        windows = evaluation_documents(corpus, 10**6, 32)
        assert sum(len(window.targets) for window in windows) == corpus.tokens - 2 * corpus.documents


def test_without_a_beginning_nothing_is_other_than_it_was(tmp_path):
    raw = tmp_path / "c.txt"
    raw.write_text("\n\n\n".join(tiny_documents(20)))
    folder = build(raw, tmp_path / "out")
    assert "begin" not in json.loads((folder / "corpus.json").read_text())
    corpus = open_corpus(folder, "train")
    rows = calibration_windows(corpus, 128, 32)
    assert torch.equal(asked(rows, (), corpus.separator), rows[:, 1:])
    assert np.array_equal(rows[0].numpy(), corpus.read(0, 33))
