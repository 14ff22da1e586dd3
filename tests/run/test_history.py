"""Earlier builds and running ones, as their records tell of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from colbuild import events
from colbuild.errors import BuildError
from colbuild.progress import Progress
from colbuild.run.history.build_record import Outcome, recorded
from colbuild.run.history.history import FailedStep, family_history, read_run
from tests.helpers.project import ROOT

BUILD = """
import sys, time
from pathlib import Path
from colbuild.progress import Progress
from colbuild import events
from colbuild.run.history.build_record import recorded
with recorded(lambda event: None, Path(sys.argv[1])) as recording:
    recording(events.BuildStarted("fam", ("source ansnet", "distill a76", "export x"), 2))
    recording(events.StepCached("source ansnet", "in the store"))
    recording(events.StepStarted("distill a76", 1, 3))
    recording(events.StepProgress("distill a76", Progress(41, 100, "tokens", "training", {"loss": 3.9})))
    print("ready", flush=True)
    time.sleep(60)
"""


def told(folder, *sent, family="fam", error=None, spec=None):
    """A build that says some things; returns its run."""
    try:
        with recorded(lambda _: None, folder) as recording:
            recording(events.BuildStarted(family, ("a", "b", "c"), 2, spec))
            for event in sent:
                recording(event)
            if error is not None:
                raise error
    except (BuildError, KeyboardInterrupt):
        pass
    return read_run(folder / f"{recording.id}.jsonl")


@pytest.fixture
def process(tmp_path):
    """Another process in the middle of a build."""
    command = [sys.executable, "-c", BUILD, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def test_finished_build_says_what_ran_and_what_was_there(tmp_path):
    run = told(
        tmp_path,
        events.StepCached("a", "in the store"),
        events.StepStarted("b", 1, 3),
        events.StepFinished("b", 2.0, 10),
        events.StepStarted("c", 2, 3),
        events.StepFinished("c", 2.0, 10),
        events.BuildFinished(2, 1, 4.0),
    )
    assert (run.family, run.outcome, run.steps, run.to_run) == ("fam", Outcome.DONE, 3, 2)
    assert (run.ran, run.cached, run.failed, run.current, run.error) == (("b", "c"), 1, (), (), None)
    assert run.started <= run.ended <= time.time() + 0.001


def test_failed_build_says_where_and_why(tmp_path):
    run = told(
        tmp_path,
        events.StepStarted("b", 1, 3),
        events.StepFailed("b", "it is too large"),
        error=BuildError("b: it is too large"),
    )
    assert run.outcome is Outcome.FAILED
    assert run.failed == (FailedStep("b", "it is too large"),)
    assert run.error == "b: it is too large"
    assert run.current == ()


def test_step_that_worked_when_tried_again_has_not_failed(tmp_path):
    run = told(
        tmp_path,
        events.StepStarted("b", 1, 3),
        events.StepFailed("b", "out of memory"),
        events.StepStarted("b", 1, 3),
        events.StepFinished("b", 2.0, 10),
    )
    assert run.failed == ()
    assert run.ran == ("b",)


def test_interrupted_build_says_what_it_was_at(tmp_path):
    run = told(
        tmp_path,
        events.StepStarted("b", 1, 3),
        events.StepProgress("b", Progress(1, 4, "tokens")),
        error=KeyboardInterrupt(),
    )
    assert run.outcome is Outcome.INTERRUPTED
    assert [(step.step, step.progress.done) for step in run.current] == [("b", 1)]


def test_running_build_is_shown_to_other_processes_with_its_progress(tmp_path, process):
    history = family_history(tmp_path, "fam")
    assert history.last is None
    [run] = history.running
    assert (run.outcome, run.ended, run.pid) == (Outcome.RUNNING, None, process.pid)
    [step] = run.current
    assert (step.step, step.progress) == ("distill a76", Progress(41, 100, "tokens", "training", {"loss": 3.9}))
    assert family_history(tmp_path, "other").running == ()


def test_killed_build_is_shown_as_killed(tmp_path, process):
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=10)
    history = family_history(tmp_path, "fam")
    assert history.running == ()
    assert history.last.outcome is Outcome.KILLED
    assert [step.step for step in history.last.current] == ["distill a76"]
    assert history.last.ended >= history.last.started


def test_record_cut_off_anywhere_is_still_read(tmp_path):
    """A power loss or kill -9 leaves the beginning of the file."""
    run = told(tmp_path, events.StepStarted("b", 1, 3), events.StepFinished("b", 2.0, 10))
    path = tmp_path / f"{run.id}.jsonl"
    content = path.read_bytes()
    outcomes = set()
    for length in range(len(content) + 1):
        path.write_bytes(content[:length])
        cut = read_run(path)
        if cut is not None:
            assert (cut.family, cut.steps) == ("fam", 3)
            outcomes.add(cut.outcome)
    assert outcomes == {Outcome.KILLED, Outcome.DONE}


@pytest.mark.parametrize(
    "line", ["", "\x00\x00", "[]", "7", '{"event": 3, "time": "x"}', '{"step": [], "time": 1}', "\xff"]
)
def test_lines_that_mean_nothing_are_passed_over(tmp_path, line):
    run = told(tmp_path, events.StepFinished("b", 2.0, 10))
    path = tmp_path / f"{run.id}.jsonl"
    first, rest = path.read_bytes().split(b"\n", 1)
    path.write_bytes(first + b"\n" + line.encode("latin-1") + b"\n" + rest)
    assert read_run(path).ran == ("b",)


def test_last_build_of_a_family_is_its_own_and_the_latest(tmp_path):
    told(tmp_path, family="fam", error=BuildError("first"))
    second = told(tmp_path, family="fam")
    told(tmp_path, family="other", error=BuildError("another's"))
    assert family_history(tmp_path, "fam").last == second


def test_record_without_a_build_is_none(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"event": "run_started", "time": 1.0}) + "\n")
    assert read_run(tmp_path / "a.jsonl") is None
    assert read_run(tmp_path / "missing.jsonl") is None
    assert family_history(tmp_path, "fam") == family_history(tmp_path / "missing", "fam")


def test_builds_of_another_file_with_the_same_family_name_are_not_this_ones(tmp_path):
    runs, ours, other = tmp_path / "runs", tmp_path / "ours.yaml", tmp_path / "other.yaml"
    runs.mkdir()
    assert family_history(runs, "fam", ours).last is None
    old = told(runs)
    # Records of older versions do not say.
    assert family_history(runs, "fam", ours).last == old
    mine = told(runs, spec=str(ours))
    told(runs, spec=str(other), error=BuildError("no"))
    assert family_history(runs, "fam", ours).last == mine
    assert family_history(runs, "fam", other).last.outcome is Outcome.FAILED
    assert family_history(runs, "fam", tmp_path / "third.yaml").last == old
