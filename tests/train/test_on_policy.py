"""On-policy steps of the training loop: which sequences the student writes, and what decides the result."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
import torch

from colbuild.errors import StoppedError
from colbuild.progress import silent
from colbuild.train.batch import IGNORED
from colbuild.train.loop import loop
from colbuild.train.loop.keeper import Keeping
from colbuild.train.loop.own_text import OnPolicy, Texts, written_length
from colbuild.train.loop.student import Pass
from colbuild.train.loop.teaching import online
from colbuild.train.loop.training_state import State, restore, save
from tests.train.helpers import batch_of, recipe, running, same, student_of, text, tiny_llama, weights_of

STEPS = 12
PROMPT = 4


class Greedy:
    """Continues the first tokens of a sequence with what the model finds likeliest."""

    def __init__(self, model):
        self.model = model
        self.calls = []

    @torch.no_grad()
    def write(self, places, beat):
        self.calls.append(tuple(places))
        rows = torch.stack([text(place // 4)[place % 4] for place in places]) if places else torch.zeros(0, 17).long()
        for at in range(PROMPT, rows.shape[1]) if places else ():
            beat(at)
            rows[:, at] = self.model(input_ids=rows[:, :at]).logits[:, -1].argmax(dim=-1)
        drawn = torch.zeros_like(rows, dtype=torch.bool)
        drawn[:, PROMPT:] = True
        return rows, drawn

    def batch(self, rows, windows):
        return batch_of(rows)


def how(**changes):
    asked = {"share": 0.5, "every": 3, "prompt": PROMPT} | changes.pop("on_policy", {})
    return recipe(**{"steps": STEPS, "on_policy": asked, "optimizer": {"lr": 1e-2}, **changes})


def run(folder=None, *, every=1e9, stop_at=None, rows=4, spoil=(), report=silent, **changes):
    """(weights, state, writer) of a training on text that the student writes too."""
    asked, settings = iter(range(10**6)), how(**changes)
    model, teacher = tiny_llama(1), tiny_llama(2, hidden=48)
    keeping = Keeping(folder, every, lambda: stop_at is not None and next(asked) >= stop_at)
    writer, to_fail, now = Greedy(model), list(spoil), [0]

    def batches(step):
        now[0] = step
        return batch_of(text(step))

    def fail(gradient):
        if to_fail and now[0] == to_fail[0]:
            to_fail.pop(0)
            return torch.full_like(gradient, float("nan"))
        return gradient

    student = student_of(model)
    model.model.norm.weight.register_hook(fail)
    where = running(settings, keeping=keeping, rows=rows, report=report)
    own = OnPolicy(settings, loop.steps_of(settings), writer)
    state = loop.train(student, online(teacher), batches, settings, 0.0, where, own)
    return weights_of(model), state, writer


# -- which sequences --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "share", "every"), [(4, 0.5, 3), (1, 0.5, 8), (3, 0.25, 4), (2, 1.0, 1), (8, 0.3, 5)]
)
def test_the_share_of_written_sequences_holds_after_every_period_and_in_every_step(batch, share, every):
    settings = recipe(batch=batch, sequence=16, on_policy={"share": share, "every": every, "prompt": 4})
    found = [OnPolicy(settings, 10**9, Greedy(None)).places(period) for period in range(40)]
    counts = Counter(place // batch for places in found for place in places)
    assert {counts[step] for step in range(40 * every)} <= {int(batch * share), -int(-batch * share // 1)}
    for period in range(1, 41):
        assert abs(sum(map(len, found[:period])) - period * every * batch * share) <= 1
    assert all(list(places) == sorted(set(places)) for places in found)


def test_with_one_sequence_a_step_no_fixed_turn_decides_which_steps_are_written():
    settings = recipe(batch=1, sequence=16, on_policy={"share": 0.5, "every": 8, "prompt": 4})
    own = OnPolicy(settings, 10**9, Greedy(None))
    even = sum(place % 2 == 0 for period in range(50) for place in own.places(period))
    assert 60 < even < 140


def test_the_last_period_ends_with_the_training():
    settings = how()
    assert max(OnPolicy(settings, 10, Greedy(None)).places(3)) < 10 * 4


def test_written_rows_come_last_in_their_pass_and_only_what_was_drawn_is_asked():
    model = tiny_llama(1)
    own = OnPolicy(how(), STEPS, Greedy(model))
    texts = own.texts(0, None, running(how()).accelerator, lambda *_: None)
    corpus = batch_of(text(0))
    passes = (Pass(0, 1, None, 0), Pass(1, 4, None, 0))
    found = own.batch(0, corpus, texts, passes)
    places = [place for place in texts_of(own, 0) if place < 4]
    assert sum(found.written) == len(places) == 2
    assert found.written[1:] == tuple(sorted(found.written[1:]))
    assert sorted(found.windows) == [0, 1, 2, 3]
    for row, window in enumerate(found.windows):
        if found.written[row]:
            assert window in places
            assert (found.targets[row, : PROMPT - 1] == IGNORED).all()
            assert (found.targets[row, PROMPT - 1 :] == texts.tokens[places.index(window), PROMPT:]).all()
            assert (found.tokens[row, :PROMPT] == corpus.tokens[window, :PROMPT]).all()
        else:
            assert window not in places
            assert torch.equal(found.targets[row], corpus.targets[window])
    assert written_length(found) == 17 - PROMPT
    assert written_length(corpus) == 0.0


def texts_of(own, period):
    return own.places(period)


def test_a_row_in_which_nothing_was_drawn_gives_way_to_the_corpus():
    own = OnPolicy(how(), STEPS, Greedy(tiny_llama(1)))
    texts = own.texts(0, None, running(how()).accelerator, lambda *_: None)
    corpus = batch_of(text(0))
    silent_ = Texts(0, texts.tokens, torch.zeros_like(texts.drawn))
    assert own.batch(0, corpus, silent_, (Pass(0, 4, None, 0),)) is corpus


# -- what is learned from them ----------------------------------------------------------------------------------------


def test_cross_entropy_is_of_the_corpus_alone_and_the_loss_adds_up():
    _, state, _ = run(loss={"kd_weight": 0.8, "ce_weight": 0.2})
    for reading in state.readings:
        # Two rows of 13 drawn tokens, and two of 16 of the corpus.
        assert reading.written == pytest.approx(26 / 58)
        assert reading.written_length == 13
        assert reading.loss == pytest.approx(0.8 * reading.kl + 0.2 * reading.ce * (1 - reading.written), rel=1e-5)
        assert reading.written_kl > 0


def test_all_of_the_text_may_be_the_students():
    _, state, _ = run(on_policy={"share": 1.0}, loss={"type": "reverse_kl"})
    assert {reading.written for reading in state.readings} == {1.0}
    assert {reading.ce for reading in state.readings} == {0.0}
    assert all(reading.loss == pytest.approx(0.6 * reading.written_kl) for reading in state.readings)


@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl", "jsd"])
def test_training_on_its_own_text_brings_the_student_nearer_to_its_teacher(kind):
    _, state, _ = run(steps=60, on_policy={"share": 1.0}, loss={"type": kind, "kd_weight": 1.0, "ce_weight": 0.0})
    kl = [reading.kl for reading in state.readings]
    assert sum(kl[-10:]) < 0.7 * sum(kl[:10])


def test_text_is_written_once_a_period_and_with_the_weights_of_its_beginning():
    told = []
    _, state, writer = run(report=told.append)
    assert len(writer.calls) == STEPS / 3
    assert [call[0] // 12 for call in writer.calls] == [0, 1, 2, 3]
    assert any("the student writes 6 texts: token" in progress.phase for progress in told)
    tokens = [Greedy(tiny_llama(1)).write(writer.calls[0], lambda _: None)[0], state.texts.tokens]
    assert state.texts.period == 3
    assert not torch.equal(*tokens)


# -- nothing else decides the result ----------------------------------------------------------------------------------


def test_same_seed_gives_the_same_bytes_and_another_seed_others():
    first, second, other = run(), run(), run(seed=5)
    assert same(first[0], second[0])
    assert first[1].readings == second[1].readings
    assert not same(first[0], other[0])


@pytest.mark.parametrize("rows", [1, 3])
def test_micro_batches_change_the_rounding_alone(rows):
    whole, parts = run()[1], run(rows=rows)[1]
    assert [reading.loss for reading in parts.readings] == pytest.approx(
        [reading.loss for reading in whole.readings], rel=1e-4
    )
    assert torch.equal(whole.texts.tokens, parts.texts.tokens)


def test_stopped_at_any_step_and_in_the_middle_of_writing_equals_uninterrupted(tmp_path):
    whole = run()
    for stop_at in (1, 9, 21, 47):
        folder = tmp_path / str(stop_at)
        with pytest.raises(StoppedError):
            run(folder, stop_at=stop_at)
        found = run(folder)
        assert same(found[0], whole[0])
        assert found[1].readings == whole[1].readings


def test_stopped_again_and_again_equals_uninterrupted(tmp_path):
    whole, stops = run(), 0
    while True:
        try:
            # A step or two, and all beats of a writing.
            found = run(tmp_path, stop_at=15)
            break
        except StoppedError:
            stops += 1
    assert stops > 2
    assert same(found[0], whole[0])


def test_taken_back_to_a_quarter_inside_a_period_it_reads_the_same_texts(tmp_path):
    # Quarters at 10, 20 and 30 of 40 steps; periods of 6 begin at 18 and 24.
    settings = {"steps": 40, "on_policy": {"every": 6}}
    calm = run(tmp_path / "calm", **settings)[1]
    found = run(tmp_path / "taken", spoil=(25,), **settings)
    assert found[1].setback.resumed == 20
    assert found[1].readings[20].loss == calm.readings[20].loss
    # Asked before each step and token: 91 times up to the setback.
    for stop_at in (60, 100):
        folder = tmp_path / str(stop_at)
        with pytest.raises(StoppedError):
            run(folder, stop_at=stop_at, spoil=(25,), **settings)
        again = run(folder, spoil=(25,) if stop_at == 60 else (), **settings)
        assert same(again[0], found[0])


def test_a_checkpoint_holds_the_texts_and_one_without_has_none(tmp_path):
    student = student_of(tiny_llama(1))
    optimizer = torch.optim.AdamW(list(student.masters.values()))
    _, state, _ = run()
    texts = Texts(7, state.texts.tokens, state.texts.drawn)
    for name, kept in (("with", texts), ("without", None)):
        save(State(student.masters, optimizer, state.readings[:0], texts=kept), tmp_path / name)
        assert list((tmp_path / name).glob("step-00000000.*"))
    # A checkpoint counts from its first step on.
    saved = run(tmp_path / "run", every=0.0)[1]
    found = State(student.masters, torch.optim.AdamW(list(student.masters.values())), [])
    restore(found, tmp_path / "run", STEPS)
    assert found.step == STEPS - 1
    assert found.texts.period == 3
    assert torch.equal(found.texts.tokens, saved.texts.tokens)
    assert found.texts.drawn.dtype == torch.bool


TWO = """
import sys
from pathlib import Path
import torch
from colbuild.train.loop.devices import side_by_side
from colbuild.train.loop.loop import train
from colbuild.train.loop.own_text import OnPolicy
from colbuild.train.loop.teaching import online
from tests.train.helpers import batch_of, running, student_of, text, tiny_llama, weights_of
from tests.train.test_on_policy import STEPS, Greedy, how

def work():
    torch.set_num_threads(1)
    settings, model = how(), tiny_llama(1)
    where, writer = running(settings, rows=1), Greedy(model)
    own = OnPolicy(settings, STEPS, writer)
    teacher = online(tiny_llama(2, hidden=48))
    state = train(student_of(model), teacher, lambda step: batch_of(text(step)), settings, 0.0, where, own)
    found = {"weights": weights_of(model), "texts": state.texts.tokens, "written": sum(map(len, writer.calls)),
             "losses": [(one.loss, one.written_kl) for one in state.readings]}
    torch.save(found, Path(sys.argv[1]) / f"{where.accelerator.process_index}.pt")

side_by_side(work, int(sys.argv[2]))
"""


@pytest.mark.slow
def test_each_of_two_processes_writes_half_of_the_texts_and_both_learn_from_all(tmp_path):
    for name, count in (("one", 1), ("two", 2)):
        (tmp_path / name).mkdir()
        command = [sys.executable, "-c", TWO, str(tmp_path / name), str(count)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
    alone, first, second = (torch.load(tmp_path / name) for name in ("one/0.pt", "two/0.pt", "two/1.pt"))
    assert first["written"] == second["written"] == alone["written"] / 2
    assert same(first["weights"], second["weights"])
    assert torch.equal(first["texts"], second["texts"])
    assert first["losses"] == second["losses"]
    # The first period is written with the same weights; later ones differ by rounding.
    for mine, theirs in zip(first["losses"][:3], alone["losses"][:3], strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4)
