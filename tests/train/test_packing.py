"""Reading packed text: training batches, calibration windows, evaluation windows."""

from __future__ import annotations

import json
from collections import Counter
from math import ceil

import pytest
import torch
from tokenizers import Tokenizer

from colbuild.errors import BuildError
from colbuild.train.batch import IGNORED
from colbuild.train.corpus.packing import PackedCorpus, open_corpus
from colbuild.train.corpus.text_windows import (
    calibration_windows,
    choice_windows,
    evaluation_documents,
    read_windows,
    training_windows,
    windows_before_choice,
)
from tests.helpers.tiny import tiny_documents
from tests.ops.corpus.helpers import build, packed_texts, tokenizer_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("packing")
    raw = root / "c.jsonl"
    long = "\n".join(tiny_documents(120, seed=9))
    raw.write_text("".join(json.dumps({"text": text}) + "\n" for text in [*tiny_documents(100), long, "ö"]))
    return build(raw, root / "out", format="jsonl", heldout=0.2)


def stream(corpus: PackedCorpus) -> torch.Tensor:
    return torch.from_numpy(corpus.read(0, corpus.tokens))


# -- opening ----------------------------------------------------------------------------------------------------------


def test_all_is_train_followed_by_heldout(folder):
    train, heldout, both = (open_corpus(folder, split) for split in ("train", "heldout", "all"))
    assert torch.equal(stream(both), torch.cat([stream(train), stream(heldout)]))
    assert both.tokens == train.tokens + heldout.tokens
    assert both.bytes == train.bytes + heldout.bytes
    assert both.documents == 102


def test_reading_across_the_border_of_the_splits(folder):
    train, both = open_corpus(folder, "train"), open_corpus(folder, "all")
    border = train.tokens
    for start, stop in ((border - 5, border + 7), (border, border + 3), (border - 3, border), (3, 9)):
        assert both.read(start, stop).tolist() == stream(both)[start:stop].tolist()


def test_empty_split_says_what_to_do(tmp_path):
    raw = tmp_path / "c.txt"
    raw.write_text("some text")
    out = build(raw, tmp_path / "out", heldout=0.0)
    with pytest.raises(BuildError, match="heldout split of the corpus is empty") as caught:
        open_corpus(out, "heldout")
    assert "heldout" in caught.value.hint
    assert open_corpus(out, "all").documents == 1


@pytest.mark.parametrize("damage", ["cut tokens", "no meta", "no index", "other format", "broken meta", "no splits"])
def test_damaged_corpus_is_a_clear_error(tmp_path, damage):
    raw = tmp_path / "c.txt"
    raw.write_text("some text")
    out = build(raw, tmp_path / "out")
    meta = json.loads((out / "corpus.json").read_text())
    match damage:
        case "cut tokens":
            (out / "train.bin").write_bytes((out / "train.bin").read_bytes()[:-1])
        case "no meta":
            (out / "corpus.json").unlink()
        case "no index":
            (out / "train.index.bin").unlink()
        case "other format":
            (out / "corpus.json").write_text(json.dumps({**meta, "format": 99}))
        case "broken meta":
            (out / "corpus.json").write_text("{")
        case "no splits":
            (out / "corpus.json").write_text(json.dumps({**meta, "splits": {}}))
    with pytest.raises(BuildError) as caught:
        open_corpus(out, "train")
    assert str(out) in caught.value.message
    assert caught.value.hint == "build it again"


# -- training ---------------------------------------------------------------------------------------------------------


def _training_batch(corpus, *, seed, step, batch, sequence):
    """Tokens [batch, sequence + 1] of a step, where every token is asked for."""
    windows = training_windows(corpus, seed=seed, step=step, batch=batch, sequence=sequence)
    read = read_windows(corpus, windows, sequence, apart=True)
    assert read.windows == windows
    return torch.cat([read.tokens, read.targets[:, -1:]], dim=1)


def test_batch_is_a_function_of_seed_and_step(folder):
    corpus = open_corpus(folder, "train")
    ask = {"batch": 4, "sequence": 32}
    first = _training_batch(corpus, seed=1, step=5, **ask)
    assert first.shape == (4, 33)
    assert first.dtype == torch.long
    assert torch.equal(first, _training_batch(open_corpus(folder, "train"), seed=1, step=5, **ask))
    assert not torch.equal(first, _training_batch(corpus, seed=2, step=5, **ask))
    assert not torch.equal(first, _training_batch(corpus, seed=1, step=6, **ask))


@pytest.mark.parametrize("sequence", [16, 100, 333])
def test_an_epoch_passes_over_every_window_once_and_the_next_in_another_order(folder, sequence):
    corpus = open_corpus(folder, "train")
    ids = stream(corpus)
    count = (corpus.tokens - 1) // sequence
    windows = [ids[i * sequence : (i + 1) * sequence + 1].tolist() for i in range(count)]
    read = [
        _training_batch(corpus, seed=0, step=step, batch=1, sequence=sequence)[0].tolist() for step in range(2 * count)
    ]
    for epoch in (read[:count], read[count:]):
        assert Counter(map(tuple, epoch)) == Counter(map(tuple, windows))
        assert epoch != windows
    assert read[:count] != read[count:]


def test_batches_of_any_size_read_the_same_windows(folder):
    corpus = open_corpus(folder, "train")
    big = torch.cat([_training_batch(corpus, seed=3, step=step, batch=6, sequence=20) for step in range(4)])
    small = torch.cat([_training_batch(corpus, seed=3, step=step, batch=2, sequence=20) for step in range(12)])
    assert torch.equal(big, small)


def test_corpus_of_exactly_one_window_trains_and_a_smaller_one_says_so(folder):
    corpus = open_corpus(folder, "train")
    batch = _training_batch(corpus, seed=0, step=7, batch=3, sequence=corpus.tokens - 1)
    assert torch.equal(batch, stream(corpus).expand(3, -1))
    with pytest.raises(BuildError, match="too few for one window"):
        _training_batch(corpus, seed=0, step=0, batch=1, sequence=corpus.tokens)


# -- calibration ------------------------------------------------------------------------------------------------------


def test_calibration_is_spread_evenly_and_always_the_same(folder):
    corpus = open_corpus(folder, "train")
    ids, available = stream(corpus), (corpus.tokens - 1) // 64
    windows = calibration_windows(corpus, 8 * 64 + 63, 64)
    assert windows.shape == (8, 65)
    assert torch.equal(windows, calibration_windows(corpus, 8 * 64, 64))
    for place, window in enumerate(windows):
        start = place * available // 8 * 64
        assert torch.equal(window, ids[start : start + 65])


def test_calibration_takes_at_least_one_window_and_no_more_than_there_are(folder):
    corpus = open_corpus(folder, "train")
    assert calibration_windows(corpus, 1, 64).shape == (1, 65)
    assert calibration_windows(corpus, 10**9, 64).shape == ((corpus.tokens - 1) // 64, 65)
    with pytest.raises(BuildError, match="too few"):
        calibration_windows(corpus, 1, corpus.tokens)


@pytest.mark.parametrize("tokens", [64, 300, 1_500, 10**9])
def test_a_choice_is_made_on_the_end_and_nothing_else_is_read_of_it(folder, tokens):
    corpus = open_corpus(folder, "heldout")
    windows = [row.tolist() for row in calibration_windows(corpus, 10**9, 16)]  # all of them, in order
    chosen = [windows.index(row.tolist()) for row in choice_windows(corpus, tokens, 16)]
    before = [windows.index(row.tolist()) for row in windows_before_choice(corpus, tokens, 16, 10**9)]
    assert len(chosen) == min(ceil(tokens / 16), len(windows))
    assert chosen == sorted(set(chosen))
    assert before == list(range(min(len(windows) * 3 // 4, len(windows) - len(chosen))))
    assert not set(chosen) & set(before)


def test_an_evaluation_of_two_thirds_of_the_text_reads_nothing_of_a_choice(folder):
    corpus = open_corpus(folder, "heldout")
    read = torch.cat([window.targets for window in evaluation_documents(corpus, corpus.tokens // 2, 64)])
    ids = stream(corpus)
    text = ids[ids != corpus.separator]
    assert torch.equal(read, text[: len(read)])
    first = choice_windows(corpus, 64, 16)[0]
    places = [start for start in range(len(ids) - 16) if torch.equal(ids[start : start + 17], first)]
    assert places == [start for start in places if start > len(read)] != []


# -- evaluation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "heldout", "all"])
@pytest.mark.parametrize("context", [1, 7, 64, 100_000])
def test_every_token_of_the_documents_is_scored_once_and_the_bytes_are_exact(folder, split, context):
    corpus = open_corpus(folder, split)
    windows = evaluation_documents(corpus, 10**9, context)
    targets = torch.cat([window.targets for window in windows])
    ids = stream(corpus)
    assert torch.equal(targets, ids[ids != corpus.separator])
    assert sum(window.bytes for window in windows) == corpus.bytes
    assert all(window.inputs.shape == window.targets.shape for window in windows)
    assert all(1 <= len(window.targets) <= context for window in windows)
    assert all(torch.equal(window.inputs[1:], window.targets[:-1]) for window in windows)


def test_first_token_is_predicted_from_the_separator_and_others_from_the_one_before(folder):
    corpus = open_corpus(folder, "all")
    before = torch.cat([torch.tensor([corpus.separator]), stream(corpus)])
    expected = before[:-1][stream(corpus) != corpus.separator]
    windows = evaluation_documents(corpus, 10**9, 50)
    assert torch.equal(torch.cat([window.inputs for window in windows]), expected)
    assert sum(int(window.inputs[0]) == corpus.separator for window in windows) == corpus.documents


def test_evaluation_stops_at_the_document_that_reaches_the_tokens(folder):
    corpus = open_corpus(folder, "train")
    texts = packed_texts(folder, "train")
    windows = evaluation_documents(corpus, 300, 64)
    scored = sum(len(window.targets) for window in windows)
    used = sum(int(window.inputs[0]) == corpus.separator for window in windows)
    assert scored >= 300
    assert sum(window.bytes for window in windows) == sum(len(text.encode()) for text in texts[:used])
    assert used > 1
    assert sum(window.bytes for window in evaluation_documents(corpus, 1, 64)) == len(texts[0].encode())


def test_evaluation_stops_inside_a_long_document_with_exact_bytes(tmp_path):
    text = "\n".join(tiny_documents(300, seed=4))
    raw = tmp_path / "c.jsonl"
    raw.write_text(json.dumps({"text": text}))
    corpus = open_corpus(build(raw, tmp_path / "out", format="jsonl"), "train")
    windows = evaluation_documents(corpus, 100, 64)
    decoder = Tokenizer.from_file(str(tokenizer_folder() / "tokenizer.json"))
    scored = torch.cat([window.targets for window in windows])
    assert len(scored) < corpus.tokens / 3
    start = decoder.decode(scored.tolist())
    assert text.startswith(start)
    assert sum(window.bytes for window in windows) == len(start.encode())


# -- documents in a sequence ------------------------------------------------------------------------------------------


def test_documents_apart_begin_with_their_separator_and_everything_is_asked_of_them(folder):
    corpus = open_corpus(folder, "train")
    batch = read_windows(corpus, (0, 1), 64, apart=True)
    begins = (batch.tokens == corpus.separator).long()
    assert begins.sum() > 0
    assert torch.equal(batch.documents.diff(dim=1), begins[:, 1:].int())
    assert int((batch.targets == IGNORED).sum()) == 0


def test_joined_documents_are_not_asked_what_comes_after_a_separator(folder):
    corpus = open_corpus(folder, "train")
    joined, apart = (read_windows(corpus, (0, 1), 64, apart=apart) for apart in (False, True))
    assert joined.documents is None
    assert torch.equal(joined.tokens, apart.tokens)
    after = joined.tokens == corpus.separator
    assert torch.equal(joined.targets == IGNORED, after)
    assert torch.equal(joined.targets[~after], apart.targets[~after])


def test_rows_of_a_batch_are_a_batch(folder):
    corpus = open_corpus(folder, "train")
    whole = read_windows(corpus, (0, 1, 2), 64, apart=True)
    part, alone = whole.part(1, 3), read_windows(corpus, (1, 2), 64, apart=True)
    assert part.windows == alone.windows
    for one, other in ((part.tokens, alone.tokens), (part.targets, alone.targets), (part.documents, alone.documents)):
        assert torch.equal(one, other)
