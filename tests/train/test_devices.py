"""Where a training runs: one process or several give the same training, and what one of them raises is told."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from colbuild.errors import BuildError, StoppedError
from colbuild.train.loop import devices
from colbuild.train.loop.devices import computing_type, processes, side_by_side

CPU = torch.device("cpu")

TWO = """
import json, sys
from pathlib import Path
import torch
from colbuild.errors import BuildError, StoppedError
from colbuild.train.loop.devices import side_by_side
from colbuild.train.loop.loop import train
from colbuild.train.loop.teaching import online
from tests.train.helpers import batch_of, recipe, running, student_of, text, tiny_llama, weights_of

folder, count, trouble = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]

def work():
    torch.set_num_threads(1)
    how = recipe(steps=6)
    where = running(how, rows=1)
    assert where.accelerator.num_processes == count
    if trouble == "stopped":
        raise StoppedError("stopped after step 3", hint="go on")
    if trouble == "bug" and not where.accelerator.is_main_process:
        raise ValueError("a bug")
    student = student_of(tiny_llama(1))
    teacher = tiny_llama(2, hidden=48)
    taught = online(teacher, tuple(teacher.model.layers))
    state = train(student, taught, lambda step: batch_of(text(step)), how, 0.1, where)
    torch.save({"weights": weights_of(student.model), "losses": [r.loss for r in state.readings],
                "norms": [r.norm for r in state.readings]}, folder / f"{where.accelerator.process_index}.pt")

try:
    side_by_side(work, count)
except (BuildError, StoppedError) as error:
    print(json.dumps([type(error).__name__, error.message, error.hint]))
"""


def run(folder, count, trouble=""):
    """Trains in a process of its own, as a step does; returns what it says of an error."""
    folder.mkdir()
    command = [sys.executable, "-c", TWO, str(folder), str(count), trouble]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip() else None


@pytest.mark.slow
def test_two_processes_train_as_one_does(tmp_path):
    assert run(tmp_path / "one", 1) is None
    assert run(tmp_path / "two", 2) is None
    alone, first, second = (torch.load(tmp_path / name) for name in ("one/0.pt", "two/0.pt", "two/1.pt"))
    assert first["losses"] == second["losses"] == pytest.approx(alone["losses"], rel=1e-5)
    assert first["norms"] == second["norms"] == pytest.approx(alone["norms"], rel=1e-4)
    for name, weight in alone["weights"].items():
        assert torch.equal(first["weights"][name], second["weights"][name])
        torch.testing.assert_close(first["weights"][name], weight, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_what_a_process_raises_is_raised_here(tmp_path):
    assert run(tmp_path / "stopped", 2, "stopped") == ["StoppedError", "stopped after step 3", "go on"]
    kind, message, _ = run(tmp_path / "bug", 2, "bug")
    assert (kind, message) == ("BuildError", "a process of the training ended: ValueError: a bug")


def test_one_process_is_this_one():
    seen = []
    side_by_side(lambda: seen.append(1), 1)
    assert seen == [1]
    with pytest.raises(StoppedError):
        side_by_side(lambda: (_ for _ in ()).throw(StoppedError("no")), 1)
    with pytest.raises(BuildError):
        side_by_side(lambda: (_ for _ in ()).throw(BuildError("no")), 1)


def test_without_a_gpu_there_is_one_process(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert processes() == 1
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert processes() == 4


def test_bf16_is_computed_where_there_are_instructions_for_it(monkeypatch):
    monkeypatch.setattr(devices, "_cpu_has_bf16", lambda: False)
    assert computing_type("bf16", CPU) is torch.float32
    assert computing_type("bf16", torch.device("cuda")) is torch.bfloat16
    assert computing_type("bf16", torch.device("mps")) is torch.bfloat16
    monkeypatch.setattr(devices, "_cpu_has_bf16", lambda: True)
    assert computing_type("bf16", CPU) is torch.bfloat16
    assert computing_type("fp32", CPU) is torch.float32
