"""What `colbuild status` says of builds."""

from __future__ import annotations

import json

import pytest
from rich.console import Console

from colbuild.progress import Progress
from colbuild.report.screen.history_view import history_to_json, print_history
from colbuild.run.history.build_record import Outcome
from colbuild.run.history.history import FailedStep, History, Run, RunningStep

DONE = Run("r", "fam", Outcome.DONE, 1000.0, 1660.0, 16, 3, ("a", "b", "c"), 13, (), ())
AT_WORK = (
    RunningStep("distill a76", 1100.0, Progress(41, 100, "tokens", "training", {"loss": 3.9134})),
    RunningStep("export x", 1100.0),
)
NOW = 1660.0 + 7200.0


def said(history):
    console = Console(width=200, highlight=False, markup=False)
    with console.capture() as capture:
        print_history(history, console, NOW)
    return capture.get().splitlines()


def changed(**values):
    return Run(**{**vars(DONE), **values})


@pytest.mark.parametrize(
    ("run", "line"),
    [
        (DONE, "last build: 2 h ago, 16 steps, 3 ran, 11 min"),
        (
            changed(
                outcome=Outcome.FAILED,
                failed=(FailedStep("export x", "too large\nby far"),),
                error="export x: too large",
            ),
            "last build: failed 2 h ago at export x: too large (16 steps, 3 ran, 11 min)",
        ),
        (
            changed(outcome=Outcome.FAILED, error="no network"),
            "last build: failed 2 h ago: no network (16 steps, 3 ran, 11 min)",
        ),
        (
            changed(outcome=Outcome.INTERRUPTED, current=AT_WORK[:1]),
            "last build: interrupted 2 h ago during distill a76, 41%, loss 3.913 (16 steps, 3 ran, 11 min); "
            "'colbuild build' continues from there",
        ),
        (
            changed(outcome=Outcome.KILLED),
            "last build: killed 2 h ago (16 steps, 3 ran, 11 min); 'colbuild build' continues from there",
        ),
    ],
    ids=["done", "step failed", "build failed", "interrupted", "killed"],
)
def test_last_build_is_one_line(run, line):
    assert said(History((), run)) == [line]


def test_running_build_is_shown_with_what_it_is_at(tmp_path):
    run = changed(outcome=Outcome.RUNNING, ended=None, current=AT_WORK, pid=4711, cached=2)
    assert said(History((run,), DONE)) == [
        "running: distill a76, 41%, loss 3.913 | export x; 5 of 16 steps are done, since 2 h 11 min (process 4711)",
        "last build: 2 h ago, 16 steps, 3 ran, 11 min",
    ]


def test_family_that_was_never_built_has_nothing_to_say():
    assert said(History()) == []
    assert history_to_json(History()) == {"running": [], "last": None}


def test_history_is_json():
    value = json.loads(json.dumps(history_to_json(History((changed(outcome=Outcome.RUNNING, current=AT_WORK),), DONE))))
    assert (value["last"]["outcome"], value["running"][0]["outcome"]) == ("done", "running")
    assert value["running"][0]["current"][0]["progress"]["metrics"] == {"loss": 3.9134}


def test_clock_that_was_set_back_gives_no_negative_times():
    [line] = said(History((), changed(started=NOW + 60, ended=NOW + 30)))
    assert line == "last build: just now, 16 steps, 3 ran, 0.0 s"
