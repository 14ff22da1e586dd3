"""The record of a build: every event with its time, little of its progress, and how it ended."""

from __future__ import annotations

import json
import os

import pytest

from colbuild import events
from colbuild.errors import BuildError, SourceUnavailableError, StoppedError
from colbuild.progress import Progress
from colbuild.run.history.build_record import Outcome, recorded
from colbuild.store.leases import is_held


def lines(folder):
    [path] = folder.glob("*.jsonl")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def ending(folder):
    last = lines(folder)[-1]
    assert last["event"] == "run_ended"
    return Outcome(last["outcome"]), last["message"]


def test_everything_is_heard_and_written_between_a_first_and_a_last_line(tmp_path):
    heard = []
    sent = [events.BuildStarted("fam", ("a",), 1), events.StepStarted("a", 0, 1), events.BuildFinished(1, 0, 2.0)]
    with recorded(heard.append, tmp_path) as recording:
        for event in sent:
            recording(event)
    assert heard == sent
    written = lines(tmp_path)
    assert [line["event"] for line in written] == [
        "run_started", "build_started", "step_started", "build_finished", "run_ended",
    ]  # fmt: skip
    assert written[0]["id"] == recording.id == next(tmp_path.iterdir()).stem
    assert written[0]["pid"] == os.getpid()
    assert all(line["time"] > 1.7e9 and line["v"] == 1 for line in written)


def test_progress_is_written_once_in_ten_seconds_for_each_step_and_source(tmp_path):
    now, heard = [100.0], []
    with recorded(heard.append, tmp_path, lambda: now[0]) as recording:
        for second in range(25):
            now[0] = 100.0 + second
            recording(events.StepProgress("a", Progress(second, 25, "tokens")))
            recording(events.SourceProgress("pypi://x", Progress(second, 25, "bytes")))
            if second >= 13:
                recording(events.StepProgress("b", Progress(second, 25, "tokens")))
    assert len(heard) == 62
    told = [(line.get("step") or line["uri"], line["progress"]["done"]) for line in lines(tmp_path)[1:-1]]
    assert sorted(told) == [
        ("a", 0), ("a", 10), ("a", 20), ("b", 13), ("b", 23), ("pypi://x", 0), ("pypi://x", 10), ("pypi://x", 20),
    ]  # fmt: skip


def test_record_is_held_while_its_build_lives(tmp_path):
    with recorded(lambda _: None, tmp_path):
        [path] = tmp_path.iterdir()
        assert is_held(path)
    assert not is_held(path)


@pytest.mark.parametrize(
    ("error", "outcome", "message"),
    [
        (BuildError("export x: too large", hint="shrink it"), Outcome.FAILED, "export x: too large"),
        (SourceUnavailableError("no network"), Outcome.FAILED, "no network"),
        (RuntimeError("odd"), Outcome.FAILED, "RuntimeError: odd"),
        (StoppedError("stopped"), Outcome.INTERRUPTED, None),
        (KeyboardInterrupt(), Outcome.INTERRUPTED, None),
    ],
)
def test_record_ends_with_what_became_of_the_build(tmp_path, error, outcome, message):
    with pytest.raises(type(error)), recorded(lambda _: None, tmp_path):
        raise error
    assert ending(tmp_path) == (outcome, message)


def test_failure_that_came_of_a_stop_is_an_interruption(tmp_path):
    with pytest.raises(BuildError), recorded(lambda _: None, tmp_path):
        raise BuildError("distill a: stopped") from StoppedError("stopped")
    assert ending(tmp_path) == (Outcome.INTERRUPTED, None)


def test_disk_that_refuses_ends_the_record_and_not_the_build(tmp_path):
    heard = []
    with recorded(heard.append, tmp_path) as recording:
        recording._file.close()
        recording._file = open("/dev/full", "w", encoding="utf-8")  # noqa: SIM115, PTH123
        recording(events.Notice("still heard"))
    assert heard == [events.Notice("still heard")]


def test_record_that_cannot_be_made_says_so(tmp_path):
    with pytest.raises(BuildError, match="cannot use"), recorded(lambda _: None, tmp_path / "missing"):
        pass


def test_two_builds_at_once_have_records_of_their_own(tmp_path):
    with recorded(lambda _: None, tmp_path) as first, recorded(lambda _: None, tmp_path) as second:
        assert first.id != second.id
    assert len(list(tmp_path.iterdir())) == 2
