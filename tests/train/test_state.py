"""A training that was interrupted, however that happened, ends as if nothing had been."""

from __future__ import annotations

import json
import os
import resource
import signal
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from colbuild.errors import StoppedError
from colbuild.progress import silent
from colbuild.train.loop import keeper, state_tensors
from colbuild.train.loop import training_state as state
from colbuild.train.loop.keeper import Keeping
from tests.train.helpers import recipe, same, text, tiny_llama, train, weights_of

STEPS = 6
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Killed(BaseException):
    """What stands for a kill inside this process: nothing of ours catches it."""


def run(folder=None, *, precision="fp32", every=0.0, stop_at=None, steps=STEPS, report=silent, batches=text, hidden=32):
    """(weights, readings) of a training; with `every` 0 a checkpoint is written before each step but the first."""
    torch.manual_seed(99)
    dtype = DTYPES[precision]
    student, teacher = tiny_llama(1, dtype=dtype, hidden=hidden), tiny_llama(2, hidden=48, dtype=dtype)
    asked = iter(range(10**6))
    keeping = Keeping(folder, every, lambda: stop_at is not None and next(asked) >= stop_at)
    readings = train(student, teacher, batches, recipe(steps=steps, precision=precision), report, keeping)
    return weights_of(student), readings


def killed_at(step):
    """Batches that kill the training when it asks for this step's."""

    def batches(index):
        if index == step:
            raise Killed
        return text(index)

    return batches


def interrupted(folder, step=STEPS - 1, **how):
    """Leaves in `folder` what a training killed in a step leaves."""
    with pytest.raises(Killed):
        run(folder, batches=killed_at(step), **how)


def checkpoints(folder):
    return sorted(path.name for path in folder.iterdir())


def names(*steps):
    return sorted(f"step-{step:08d}.{suffix}" for step in steps for suffix in ("json", "safetensors"))


def first_step_of(folder, **how):
    """The step that a training in `folder` begins with, found without changing it."""
    seen = []

    def batches(index):
        seen.append(index)
        raise Killed

    with pytest.raises(Killed):
        run(folder, batches=batches, **how)
    return seen[0]


def equal(one, other):
    return same(one[0], other[0]) and one[1] == other[1]


# -- going on ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", DTYPES)
def test_stopped_at_every_step_equals_uninterrupted(tmp_path, precision):
    whole = run(precision=precision)
    for stop_at in range(1, STEPS):
        folder = tmp_path / str(stop_at)
        with pytest.raises(StoppedError, match=f"stopped after step {stop_at} of {STEPS}") as caught:
            run(folder, precision=precision, every=1e9, stop_at=stop_at)
        assert f"continues with step {stop_at + 1}" in caught.value.hint
        assert checkpoints(folder) == names(stop_at)
        assert equal(run(folder, precision=precision), whole)


@pytest.mark.parametrize("precision", DTYPES)
def test_stopped_again_and_again_equals_uninterrupted(tmp_path, precision):
    for step in range(1, STEPS):
        with pytest.raises(StoppedError, match=f"after step {step} of"):
            run(tmp_path, precision=precision, every=1e9, stop_at=1)
    assert equal(run(tmp_path, precision=precision), run(precision=precision))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kills=st.lists(st.integers(0, STEPS - 1), max_size=4), every=st.sampled_from([0.0, 0.01, 1e9]))
def test_killed_in_any_steps_equals_uninterrupted(tmp_path_factory, kills, every):
    folder = tmp_path_factory.mktemp("partial")
    for step in kills:
        try:
            run(folder, every=every, batches=killed_at(step))
        except Killed:
            continue
        break  # it went on behind that step, and finished
    assert equal(run(folder, every=every), run())


def test_random_state_goes_on_where_it_was(tmp_path):
    def drawing(index):
        return (text(index) + torch.randint(0, 2, (1,))) % 40

    def killed(index):
        if index == 4:
            raise Killed
        return drawing(index)

    with pytest.raises(Killed):
        run(tmp_path, batches=killed)
    assert equal(run(tmp_path, batches=drawing), run(batches=drawing))


def test_progress_begins_where_the_training_goes_on(tmp_path):
    interrupted(tmp_path, step=4)
    told = []
    run(tmp_path, report=told.append)
    assert [entry.phase for entry in told] == ["step 4/6, resumed", "step 5/6", "step 6/6"]
    assert [entry.done for entry in told] == [256, 320, 384]


def test_checkpoint_changes_nothing_in_a_run_that_is_not_interrupted(tmp_path):
    assert equal(run(tmp_path), run())


# -- when, and what is kept -------------------------------------------------------------------------------------------


def test_two_are_kept_and_nothing_else_lies_there(tmp_path):
    interrupted(tmp_path)
    assert checkpoints(tmp_path) == names(4, 5)


def test_checkpoint_is_written_when_the_interval_is_over(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(keeper.time, "monotonic", lambda: now[0])
    written = []
    save = state.save
    monkeypatch.setattr(keeper, "save", lambda kept, *where: (written.append(kept.step), save(kept, *where)))

    def slow(index):
        now[0] += 1.0
        return text(index)

    run(tmp_path, every=2.0, batches=slow)
    assert written == [2, 4]


def test_without_a_folder_nothing_is_kept_and_stopping_just_stops():
    with pytest.raises(StoppedError, match="stopped after step 2 of 6") as caught:
        run(None, stop_at=2)
    assert "starts again" in caught.value.hint


def test_stopping_before_the_first_step_keeps_what_is_there(tmp_path):
    with pytest.raises(StoppedError, match="stopped after step 0 of 6"):
        run(tmp_path / "none", stop_at=0)
    assert not (tmp_path / "none").exists()
    interrupted(tmp_path, step=3)
    with pytest.raises(StoppedError, match="stopped after step 3 of 6") as caught:
        run(tmp_path, every=1e9, stop_at=0)
    assert "continues with step 4" in caught.value.hint
    assert checkpoints(tmp_path) == names(2, 3)


def test_a_training_that_is_done_is_not_stopped_any_more(tmp_path):
    assert equal(run(tmp_path, stop_at=STEPS), run())


# -- what is on the disk cannot be trusted ------------------------------------------------------------------------------


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at % len(content)] ^= 1
    path.write_bytes(content)


def truncate(path, at):
    os.truncate(path, at % path.stat().st_size)


def remove(path, at):
    path.unlink()


def damaged(path, how, at):
    """Damages a file so that it says something else: another last digit may be the same number."""
    before = path.read_bytes()
    how(path, at)
    if path.suffix == ".json" and path.exists():
        try:
            assume(json.loads(path.read_bytes()) != json.loads(before))
        except ValueError:
            return


damages = st.tuples(st.sampled_from(["json", "safetensors"]), st.sampled_from([flip, truncate, remove]), st.integers(0))


@pytest.fixture(scope="module")
def whole():
    return run()


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """The files of a training that was killed in its last step."""
    folder = tmp_path_factory.mktemp("left")
    interrupted(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def laid_out(tmp_path_factory, left):
    folder = tmp_path_factory.mktemp("partial")
    for name, content in left.items():
        (folder / name).write_bytes(content)
    return folder


@settings(max_examples=40, deadline=None)
@given(damage=damages)
def test_damaged_newest_falls_back_to_the_older_and_is_removed(tmp_path_factory, left, whole, damage):
    folder = laid_out(tmp_path_factory, left)
    suffix, how, at = damage
    damaged(folder / f"step-{5:08d}.{suffix}", how, at)
    assert first_step_of(folder) == 4
    assert checkpoints(folder) == names(4)
    assert equal(run(folder), whole)


@settings(max_examples=15, deadline=None)
@given(first=damages, second=damages)
def test_both_damaged_starts_anew(tmp_path_factory, left, whole, first, second):
    folder = laid_out(tmp_path_factory, left)
    for step, (suffix, how, at) in ((4, first), (5, second)):
        damaged(folder / f"step-{step:08d}.{suffix}", how, at)
    assert first_step_of(folder) == 0
    assert checkpoints(folder) == []
    assert equal(run(folder), whole)


def test_what_an_interrupted_writing_left_is_removed(tmp_path):
    interrupted(tmp_path)
    (tmp_path / "draft").write_bytes(b"half a checkpoint")
    (tmp_path / f"step-{6:08d}.safetensors").write_bytes(b"no JSON yet")
    assert first_step_of(tmp_path) == 5
    assert checkpoints(tmp_path) == names(4, 5)


@pytest.mark.parametrize("how", [{"hidden": 64}, {"steps": 4}], ids=["other shapes", "fewer steps"])
def test_checkpoint_of_another_training_is_ignored(tmp_path, how):
    interrupted(tmp_path)
    assert first_step_of(tmp_path, **how) == 0
    assert checkpoints(tmp_path) == []


def resealed(folder, **changes):
    """Changes the facts of each checkpoint and makes them sound again."""
    for path in folder.glob("*.json"):
        values = json.loads(path.read_bytes())
        del values["digest"]
        path.write_bytes(state._sealed(values | changes))


@pytest.mark.parametrize(
    "changes", [{"torch": "0.1"}, {"format": "colbuild.training.v2"}, {"step": 3}, {"readings": []}], ids=str
)
def test_checkpoint_of_another_torch_or_form_is_ignored(tmp_path, changes):
    interrupted(tmp_path)
    resealed(tmp_path)
    assert first_step_of(tmp_path) == 5
    resealed(tmp_path, **changes)
    assert first_step_of(tmp_path) == 0


def test_tensors_of_another_step_are_ignored(tmp_path):
    interrupted(tmp_path)
    older, newer = (tmp_path / f"step-{step:08d}.safetensors" for step in (4, 5))
    newer.write_bytes(older.read_bytes())
    facts = tmp_path / f"step-{5:08d}.json"
    values = json.loads(facts.read_bytes()) | {"tensors": state.hash_file(newer)}
    del values["digest"]
    facts.write_bytes(state._sealed(values))
    assert first_step_of(tmp_path) == 4


# -- a disk that refuses ------------------------------------------------------------------------------------------------


def test_full_disk_ends_no_training_and_leaves_no_torn_file(tmp_path, whole):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    told = []
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        found = run(tmp_path, report=told.append)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert equal(found, whole)
    assert checkpoints(tmp_path) == []
    assert told[-1].phase == "step 6/6, no checkpoint: file too large"


def test_full_disk_keeps_the_checkpoints_that_are_there(tmp_path, monkeypatch):
    interrupted(tmp_path, step=3)

    def full(path, content):
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(state, "_write", full)
        interrupted(tmp_path, step=5)
    assert checkpoints(tmp_path) == names(2, 3)
    assert first_step_of(tmp_path) == 3


def test_checkpoints_are_written_again_once_there_is_room(tmp_path, monkeypatch, whole):
    write, refused = state._write, []

    def full_once(path, content):
        if not refused:
            refused.append(path)
            raise OSError(28, "No space left on device", str(path))
        write(path, content)

    monkeypatch.setattr(state, "_write", full_once)
    told = []
    assert equal(run(tmp_path, report=told.append), whole)
    assert [entry.phase for entry in told[:3]] == [
        "step 1/6",
        "step 2/6, no checkpoint: no space left on device",
        "step 3/6",
    ]
    assert checkpoints(tmp_path) == names(4, 5)


def test_stopping_with_a_full_disk_says_what_is_lost(tmp_path, monkeypatch):
    interrupted(tmp_path, step=2)

    def full(path, content):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(state, "_write", full)
    with pytest.raises(
        StoppedError, match="after step 4 of 6; the checkpoint could not be written: no space"
    ) as caught:
        run(tmp_path, every=1e9, stop_at=2)
    assert "continues with step 3" in caught.value.hint


# -- the form -----------------------------------------------------------------------------------------------------------


def test_any_reader_of_safetensors_reads_the_tensors(tmp_path):
    from safetensors.torch import load_file

    interrupted(tmp_path, step=2)
    found = load_file(tmp_path / f"step-{1:08d}.safetensors")
    student = tiny_llama(1)
    shapes = {name: parameter.shape for name, parameter in student.named_parameters()}
    for kind in ("weight", "exp_avg", "exp_avg_sq"):
        assert {name: found[f"{kind}/{name}"].shape for name in shapes} == shapes
    assert all(found[f"step/{name}"].item() == 1.0 for name in shapes)


def test_weights_without_a_gradient_are_kept_too(tmp_path):
    weights = {"used": torch.randn(3, 2), "unused": torch.randn(4)}
    optimizer = torch.optim.AdamW(list(weights.values()), lr=0.1, fused=True)
    weights["used"].grad = torch.ones(3, 2)
    optimizer.step()
    kept = state.State(weights, optimizer, [state.Reading(0, 1 / 3, 0.1, 1e-300, 3e-4, 0.7)])
    state.save(kept, tmp_path)
    fresh = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    again = state.State(fresh, torch.optim.AdamW(list(fresh.values()), lr=0.1, fused=True), [])
    state.restore(again, tmp_path, 2)
    assert same(fresh, weights)
    assert again.readings == kept.readings
    assert not again.optimizer.state[fresh["unused"]]
    found, expected = again.optimizer.state[fresh["used"]], optimizer.state[weights["used"]]
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[kind], expected[kind]) for kind in expected)


# -- killed for real ----------------------------------------------------------------------------------------------------

FORKED = get_context("forkserver")
"""Processes that share one import of torch."""

FORKED.set_forkserver_preload([__name__])


def die(folder, where, count):
    """Trains until something has happened so often, and kills its own process."""
    calls = 0

    def dying(function):
        def call(*arguments, **more):
            nonlocal calls
            calls += 1
            if calls == count:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **more)

        return call

    owners = {"tensor": (state_tensors, "bytes_of"), "fsync": (os, "fsync")}
    owners |= {name: (Path, name) for name in ("replace", "unlink")}
    if where in owners:
        owner, name = owners[where]
        setattr(owner, name, dying(getattr(owner, name)))
    run(folder, batches=dying(text) if where == "training" else text)


@pytest.mark.parametrize(
    ("where", "count"),
    [
        ("training", 1),
        ("training", 4),
        ("tensor", 30),
        ("tensor", 250),
        ("fsync", 1),
        ("fsync", 6),
        ("replace", 1),
        ("replace", 2),
        ("replace", 6),
        ("unlink", 1),
        ("unlink", 2),
    ],
)
def test_sigkill_anywhere_then_again_equals_uninterrupted(tmp_path, whole, where, count):
    process = FORKED.Process(target=die, args=(tmp_path, where, count))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert equal(run(tmp_path), whole)
    assert checkpoints(tmp_path) == names(4, 5)
