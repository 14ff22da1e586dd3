"""What is kept of a teacher: how much, that its mean is the teacher, that it is read back, that damage is noticed."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from colbuild.errors import BuildError
from colbuild.train.batch import Batch
from colbuild.train.corpus.teacher_cache import (
    FORMAT,
    META,
    RECORDS,
    WINDOWS,
    Teachings,
    encode,
    offsets,
    open_lessons,
    systematic,
)
from colbuild.train.losses.divergences import coarsened

KINDS = ["sampled", "top_k"]
VOCABULARY = 700
SEQUENCE = 16
TAUGHT = (2, 5, 11)


def teachings(kind="sampled", *, vocabulary=VOCABULARY, temperature=1.0):
    return Teachings(kind, temperature, vocabulary, SEQUENCE, "joined", len(TAUGHT))


def logits_of(tokens, *, vocabulary=VOCABULARY, spread=3.0, seed=0):
    return torch.randn(tokens, vocabulary, generator=torch.Generator().manual_seed(seed)) * spread


def write(folder, about, logits=None):
    """Lessons about three windows; returns the teacher's logits [windows, sequence, vocabulary]."""
    if logits is None:
        logits = logits_of(len(TAUGHT) * SEQUENCE, vocabulary=about.vocabulary)
    starts = torch.cat([offsets(3, window, SEQUENCE) for window in TAUGHT])
    folder.mkdir(exist_ok=True)
    (folder / RECORDS).write_bytes(encode(logits, about, starts))
    (folder / META).write_text(json.dumps({"format": FORMAT, **asdict(about)}))
    np.asarray(TAUGHT, "<i8").tofile(folder / WINDOWS)
    return logits.view(len(TAUGHT), SEQUENCE, -1)


def batch_of(*windows, sequence=SEQUENCE):
    tokens = torch.zeros(len(windows), sequence, dtype=torch.int64)
    return Batch(tokens, tokens, windows)


# -- draws ------------------------------------------------------------------------------------------------------------


def test_an_id_is_drawn_as_often_as_its_probability_says_on_average():
    # The mean over a fine grid of starts is the integral over all of them, up to the grid's own coarseness.
    likely = functional.softmax(logits_of(4), dim=-1)
    grid, count = 500, 30
    for row in likely:
        starts = (torch.arange(grid, dtype=torch.float64) + 0.5) / grid
        ids = systematic(row.expand(grid, -1), count, starts)
        shares = torch.bincount(ids.flatten(), minlength=VOCABULARY) / ids.numel()
        torch.testing.assert_close(shares, row, rtol=0.0, atol=1.01 / (grid * count))


def test_an_id_is_drawn_the_number_of_times_nearest_to_what_its_probability_says():
    likely = functional.softmax(logits_of(64), dim=-1)
    ids = systematic(likely, 30, torch.rand(64, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    counts = torch.zeros_like(likely).scatter_add_(1, ids, torch.ones(ids.shape))
    assert bool(((counts - 30 * likely).abs() < 1 + 1e-4).all())


@pytest.mark.parametrize("vocabulary", [2, 255, 256, 257, 1000])
def test_draws_are_those_of_the_whole_cumulative_distribution(vocabulary):
    likely = functional.softmax(logits_of(40, vocabulary=vocabulary), dim=-1)
    starts = torch.rand(40, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    places = (starts[:, None] + torch.arange(30)) / 30
    expected = torch.searchsorted(likely.double().cumsum(dim=-1) / likely.double().sum(dim=-1, keepdim=True), places)
    assert torch.equal(systematic(likely, 30, starts), expected)


def test_what_cannot_be_is_never_drawn():
    likely = torch.zeros(3, 600)
    likely[0, 599] = likely[1, 0] = likely[2, 300] = 1.0
    for start in (0.0, 0.5, 1.0 - 2.0**-53):
        ids = systematic(likely, 30, torch.full((3,), start, dtype=torch.float64))
        assert ids.unique(dim=1).flatten().tolist() == [599, 0, 300]


def test_systematic_draws_vary_less_than_independent_ones():
    likely = functional.softmax(logits_of(1), dim=-1).expand(2000, -1)
    generator = torch.Generator().manual_seed(3)
    ours = systematic(likely, 30, torch.rand(2000, dtype=torch.float64, generator=generator))
    independent = torch.multinomial(likely, 30, replacement=True, generator=generator)
    values = torch.randn(VOCABULARY, generator=generator)
    assert values[ours].mean(dim=1).var() < 0.75 * values[independent].mean(dim=1).var()


def test_starts_are_a_function_of_seed_window_and_place_and_never_reach_1():
    one = offsets(7, 3, 512)
    assert torch.equal(one[:100], offsets(7, 3, 100))
    assert bool(((one >= 0.0) & (one < 1.0)).all())
    assert abs(float(one.mean()) - 0.5) < 0.05
    for other in (offsets(8, 3, 512), offsets(7, 4, 512), offsets(3, 7, 512)):
        assert not (other == one).any()


# -- records ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("vocabulary", [2, 512, 65536, 65537, 151936])
def test_a_token_takes_less_than_64_bytes_of_any_vocabulary(kind, vocabulary):
    about = teachings(kind, vocabulary=vocabulary)
    assert about.record.itemsize <= 62
    assert about.window_bytes == SEQUENCE * about.record.itemsize


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("vocabulary", [VOCABULARY, 70_000])
def test_lessons_are_read_back_window_by_window(tmp_path, kind, vocabulary):
    about = teachings(kind, vocabulary=vocabulary, temperature=2.0)
    logits = write(tmp_path, about)
    found = open_lessons(tmp_path).samples(batch_of(11, 2))
    log_likely = functional.log_softmax(logits[[2, 0]].flatten(0, 1) / 2.0, dim=-1)
    assert found.ids.dtype == torch.int64
    assert found.ids.shape == (2 * SEQUENCE, about.kept)
    if kind == "top_k":
        assert torch.equal(found.ids, log_likely.topk(about.kept, dim=-1).indices)
        torch.testing.assert_close(found.log_likely, coarsened(log_likely, found.ids), rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(found.log_likely.exp().sum(dim=-1), torch.ones(2 * SEQUENCE))
        return
    starts = torch.cat([offsets(3, window, SEQUENCE) for window in (11, 2)])
    assert torch.equal(found.ids, systematic(log_likely.exp(), about.kept, starts))
    torch.testing.assert_close(found.weights.sum(dim=-1), torch.ones(2 * SEQUENCE))
    entropy = -(log_likely.exp() * log_likely).sum(dim=-1)
    torch.testing.assert_close(found.entropy, entropy, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_records_of_a_token_do_not_depend_on_those_beside_it(kind):
    about, logits, starts = teachings(kind), logits_of(20), torch.rand(20, dtype=torch.float64)
    whole = encode(logits, about, starts)
    parts = [encode(logits[start : start + 7], about, starts[start : start + 7]) for start in (0, 7, 14)]
    assert b"".join(parts) == whole


def test_a_vocabulary_smaller_than_what_is_kept_leaves_one_token_to_the_rest():
    about = teachings("top_k", vocabulary=9)
    assert about.kept == 8
    assert len(encode(logits_of(4, vocabulary=9), about, torch.zeros(4, dtype=torch.float64))) == 4 * (9 + 8) * 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_sure_teacher_is_kept_as_finite_numbers(tmp_path, kind):
    about = teachings(kind)
    logits = torch.zeros(len(TAUGHT) * SEQUENCE, VOCABULARY)
    logits[:, 400] = 1e6
    write(tmp_path, about, logits)
    found = open_lessons(tmp_path).samples(batch_of(5))
    assert bool((found.ids[:, 0] == 400).all())
    if kind == "top_k":
        assert bool((found.log_likely[:, 0] == 0.0).all())
        assert bool(found.log_likely.isfinite().all())
    else:
        assert not found.entropy.any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_teacher_that_computes_no_numbers_is_an_error(kind, value):
    logits = logits_of(4)
    logits[2, 17] = value
    with pytest.raises(BuildError, match="the teacher's logits are NaN or infinite"):
        encode(logits, teachings(kind), torch.zeros(4, dtype=torch.float64))


# -- what is not right ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [0, 3, 12, 10**9])
def test_a_window_that_was_not_taught_is_an_error(tmp_path, window):
    write(tmp_path, teachings())
    with pytest.raises(BuildError, match=f"no record of window {window} "):
        open_lessons(tmp_path).samples(batch_of(5, window))


def test_sequences_of_another_length_are_an_error(tmp_path):
    write(tmp_path, teachings())
    with pytest.raises(BuildError, match="holds sequences of 16 tokens, not of 8"):
        open_lessons(tmp_path).samples(batch_of(5, sequence=8))


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def unsort(path):
    np.asarray([5, 2, 11], "<i8").tofile(path)


@pytest.mark.parametrize("name", [META, WINDOWS, RECORDS])
@pytest.mark.parametrize("harm", [cut, lambda path: path.unlink(), lambda path: path.write_bytes(b"")])
def test_damaged_files_are_an_error(tmp_path, name, harm):
    write(tmp_path, teachings())
    harm(tmp_path / name)
    with pytest.raises(BuildError, match="is not a teacher's cache, or is damaged"):
        open_lessons(tmp_path)


def test_windows_out_of_order_are_an_error(tmp_path):
    write(tmp_path, teachings())
    unsort(tmp_path / WINDOWS)
    with pytest.raises(BuildError, match="is damaged"):
        open_lessons(tmp_path)


@pytest.mark.parametrize(
    "values", [{"type": "psychic"}, {"windows": 0}, {"sequence": "many"}, {"vocabulary": None}, {"more": 1}]
)
def test_facts_that_make_no_sense_are_an_error(tmp_path, values):
    write(tmp_path, teachings())
    facts = json.loads((tmp_path / META).read_text())
    (tmp_path / META).write_text(json.dumps(facts | values))
    with pytest.raises(BuildError, match="damaged"):
        open_lessons(tmp_path)


def test_another_format_is_named(tmp_path):
    write(tmp_path, teachings())
    facts = json.loads((tmp_path / META).read_text())
    (tmp_path / META).write_text(json.dumps(facts | {"format": 99}))
    with pytest.raises(BuildError, match="has format 99; this colbuild reads format 1"):
        open_lessons(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_records_are_an_error(tmp_path, kind):
    about = teachings(kind)
    write(tmp_path, about)
    (tmp_path / RECORDS).write_bytes(b"\xff" * (about.window_bytes * len(TAUGHT)))
    with pytest.raises(BuildError, match=r"records\.bin is damaged"):
        open_lessons(tmp_path).samples(batch_of(2))


def test_lessons_say_what_they_are_about(tmp_path):
    about = replace(teachings("top_k"), temperature=2.0, documents="apart")
    write(tmp_path, about)
    assert open_lessons(tmp_path).about == about
