"""teach writes what a training reads: the right windows, the same bytes always, also after interruptions."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from colbuild.errors import BuildError, StoppedError
from colbuild.hashing import scan_tree
from colbuild.ops import teach
from colbuild.ops.shared.running_models import model_of
from colbuild.progress import silent
from colbuild.train.corpus.packing import open_corpus
from colbuild.train.corpus.teacher_cache import META, RECORDS, WINDOWS, open_lessons
from colbuild.train.corpus.text_windows import read_windows, training_windows, window_count
from colbuild.train.losses.forward import final_hidden, head_weight
from colbuild.train.losses.losses import LossWeights, TeacherView, chunked_distillation_loss
from colbuild.weights.files.checkpoint import load_checkpoint, save_checkpoint
from tests.helpers.steps import run_step
from tests.ops.family import ansnet, packed, room

KINDS = ["sampled", "top_k"]
SEQUENCE = 32
PARAMS = {
    "split": "train",
    "seed": 3,
    "sequence": SEQUENCE,
    "windows": 9,
    "documents": "joined",
    "precision": "fp32",
    "temperature": 2.0,
    "type": "sampled",
}


@pytest.fixture(autouse=True)
def few_at_once(monkeypatch):
    """Two windows pass through the teacher at once, so that nine are several parts and the last is smaller."""
    monkeypatch.setattr(teach, "TOKENS_AT_ONCE", 2 * SEQUENCE)


def taught(partial=None, *, teacher=None, stop_after=None, every=1e9, report=silent, **changes):
    """The output of a run; None: it stopped, as it was asked to."""
    output = Path(tempfile.mkdtemp(prefix="teach-", dir=room()))
    asked = iter(range(10**6))
    inputs, params = {"teacher": teacher or ansnet(), "corpus": packed()}, json.loads(json.dumps(PARAMS | changes))
    stopping = lambda: stop_after is not None and next(asked) >= stop_after  # noqa: E731
    try:
        run_step("teach", inputs, params, output, report, partial, every, stopping)
    except StoppedError:
        assert partial is None or list(output.iterdir()) == []
        return None
    return output


def windows_in(output):
    return np.fromfile(output / WINDOWS, "<i8").tolist()


def corpus():
    return open_corpus(packed(), "train")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("documents", ["joined", "apart"])
def test_a_training_finds_every_window_that_it_reads(kind, documents):
    lessons = open_lessons(taught(type=kind, documents=documents))
    for step in range(3):
        windows = training_windows(corpus(), seed=3, step=step, batch=3, sequence=SEQUENCE)
        batch = read_windows(corpus(), windows, SEQUENCE, apart=documents == "apart")
        assert lessons.samples(batch).ids.shape == (3 * SEQUENCE, lessons.about.kept)


def test_windows_do_not_depend_on_how_they_are_batched_and_are_written_once_in_order():
    output = taught()
    expected = {training_windows(corpus(), seed=3, step=step, batch=1, sequence=SEQUENCE)[0] for step in range(9)}
    assert windows_in(output) == sorted(expected)


def test_windows_that_several_epochs_read_are_written_once():
    count = window_count(corpus(), SEQUENCE)
    assert windows_in(taught(windows=2 * count + 1)) == list(range(count))


def test_a_token_takes_at_most_64_bytes_with_all_that_belongs_to_it():
    output = taught(windows=60)
    assert sum(path.stat().st_size for path in output.iterdir()) <= 64 * 60 * SEQUENCE


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_lessons_give_about_the_loss_of_the_teacher_itself(kind, precision):
    lessons = open_lessons(taught(type=kind, precision=precision, windows=16, temperature=1.0))
    teacher = model_of(load_checkpoint(ansnet()), torch.float32)
    batch = read_windows(
        corpus(), training_windows(corpus(), seed=3, step=0, batch=16, sequence=SEQUENCE), SEQUENCE, apart=False
    )
    with torch.no_grad():
        hidden, head = final_hidden(teacher, batch.tokens), head_weight(teacher)
        student = hidden + 2.0 * torch.randn(hidden.shape, generator=torch.Generator().manual_seed(0))
        weights, targets = LossWeights(1.0, 0.0), batch.targets.flatten()
        exact = float(chunked_distillation_loss(student, head, TeacherView(hidden, head), targets, weights)[0])
        found = float(chunked_distillation_loss(student, head, lessons.samples(batch), targets, weights)[0])
    assert exact > 0.2
    assert 0.0 < found < exact if kind == "top_k" else abs(found - exact) < 0.1 * exact


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_same_lessons_have_the_same_bytes(tmp_path, kind, precision):
    settings = {"type": kind, "precision": precision}
    assert scan_tree(taught(**settings)) == scan_tree(taught(tmp_path / "partial", **settings))


@pytest.mark.parametrize("changes", [{"seed": 4}, {"temperature": 1.0}, {"type": "top_k"}, {"documents": "apart"}])
def test_what_is_in_the_key_changes_the_lessons(changes):
    assert scan_tree(taught(**changes)) != scan_tree(taught())


@pytest.mark.parametrize("kind", KINDS)
def test_stopped_at_each_boundary_equals_uninterrupted(tmp_path, kind):
    whole = scan_tree(taught(type=kind))
    for stop_after in range(5):
        partial = tmp_path / str(stop_after)
        assert taught(partial, type=kind, stop_after=stop_after) is None
        told = []
        assert scan_tree(taught(partial, type=kind, report=told.append)) == whole
        # It did not begin anew: what it tells first is beyond what was there.
        assert told[0].done == min(2 * (stop_after + 1), 9) * SEQUENCE


def test_stopped_again_and_again_equals_uninterrupted(tmp_path):
    runs = [taught(tmp_path, stop_after=1) for _ in range(5)]
    assert runs[:4] == [None] * 4
    assert scan_tree(taught(tmp_path)) == scan_tree(taught())


def killed(partial, after):
    """Leaves what a run killed in the middle does: records beyond the count that was written last, some of them torn."""

    def report(progress):
        if progress.done >= after * SEQUENCE:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        taught(partial, every=0.0, report=report)
    with (partial / RECORDS).open("ab") as file:
        file.write(b"torn" * 777)


def test_killed_in_the_middle_of_writing_equals_uninterrupted(tmp_path):
    killed(tmp_path, 4)
    told = []
    assert scan_tree(taught(tmp_path, report=told.append)) == scan_tree(taught())
    assert told[0].done == 6 * SEQUENCE


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 5] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "harm", [flip, lambda path: path.write_bytes(b""), lambda path: path.unlink()], ids=["flip", "empty", "gone"]
)
@pytest.mark.parametrize("name", [RECORDS, "done.json"])
def test_a_damaged_draft_is_begun_anew(tmp_path, harm, name):
    killed(tmp_path, 4)
    harm(tmp_path / name)
    assert scan_tree(taught(tmp_path)) == scan_tree(taught())


def test_a_draft_of_another_torch_is_begun_anew(tmp_path, monkeypatch):
    killed(tmp_path, 4)
    flip(tmp_path / RECORDS)
    values = json.loads((tmp_path / "done.json").read_text())
    values["made"]["torch"] = "0.1"
    (tmp_path / "done.json").write_text(json.dumps(values))
    told = []
    assert scan_tree(taught(tmp_path, report=told.append)) == scan_tree(taught())
    assert told[0].done == 2 * SEQUENCE


def test_progress_reaches_the_end():
    told = []
    taught(report=told.append)
    assert [progress.done for progress in told] == [SEQUENCE * done for done in (2, 4, 6, 8, 9)]
    assert {(progress.total, progress.unit) for progress in told} == {(9 * SEQUENCE, "tokens")}


def test_nothing_but_the_lessons_is_in_the_output(tmp_path):
    assert {path.name for path in taught(tmp_path).iterdir()} == {META, WINDOWS, RECORDS}


def test_a_teacher_that_computes_infinity_is_an_error_that_says_so(tmp_path):
    checkpoint = load_checkpoint(ansnet())
    tensors = {name: tensor.clone() for name, tensor in checkpoint.tensors.items()}
    next(tensor for name, tensor in tensors.items() if "down_proj" in name).fill_(3e38)
    save_checkpoint(type(checkpoint)(**{**vars(checkpoint), "tensors": tensors}), tmp_path, ansnet())
    with pytest.raises(BuildError, match="the teacher's logits are NaN or infinite"):
        taught(teacher=tmp_path)


def test_a_sequence_beyond_the_teachers_positions_is_an_error():
    with pytest.raises(BuildError, match="1024 tokens, the teacher only 512 positions"):
        taught(sequence=1024)
