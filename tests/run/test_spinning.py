"""Threads of OpenMP spin while a step has its cores to itself, and sleep while others want these."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colbuild.process import python_command
from colbuild.run.process import spinning
from colbuild.run.process.spinning import Crowd, Pace, let_threads_spin, watch
from tests.helpers.project import ROOT

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere threads always sleep")


def told(pace: Pace, *delays: float) -> list[bool]:
    """What a pace for two threads decides after each half of a second with so long a delay."""
    return [pace.tell(delay, 0.5) for delay in delays]


def test_threads_sleep_from_the_first_crowded_moment_until_it_has_been_quiet_for_a_while():
    assert told(Pace(2), 0.0, 0.01, 0.3, 0.0, 0.3, *[0.0] * 7) == [False] * 2 + [True] * 8 + [False] * 2


def test_others_who_come_back_at_once_are_waited_for_twice_as_long_each_time():
    pace, quiet = Pace(2), []
    for _ in range(8):
        told(pace, 0.3)
        quiet.append(next(count for count in range(1, 1_000) if not pace.tell(0.0, 0.5)) / 2)
    assert quiet == [3, 6, 12, 24, 48, 60, 60, 60]
    told(pace, *[0.0] * 200, 0.3)
    assert told(pace, *[0.0] * 6)[-2:] == [True, False]


@given(st.integers(2, 64), st.lists(st.floats(0, 100), max_size=20))
def test_threads_sleep_after_a_crowded_moment_and_spin_if_there_never_was_one(threads, delays):
    pace = Pace(threads)
    decided = [pace.tell(delay, 0.5) for delay in delays]
    crowded = [delay > 0.04 * threads for delay in delays]
    assert all(asleep for asleep, full in zip(decided, crowded, strict=True) if full)
    assert any(crowded) or not any(decided)


def spin(crowded: str) -> None:
    """CPU seconds of this process, in a second in which it does nothing after work that two threads did."""
    import torch

    torch.set_num_threads(2)
    crowd = Crowd(2, len(os.sched_getaffinity(0)))
    found = []
    for step in crowded:
        (crowd.gather if step == "+" else crowd.disperse)()
        # A thread has ended a moment after Python says so.
        time.sleep(0.1)
        torch.empty(1 << 20).fill_(0.0)
        before = time.process_time()
        time.sleep(0.5)
        found.append(time.process_time() - before)
    print(json.dumps(found))


@LINUX
def test_libgomp_lets_threads_spin_and_sleep_as_it_is_told():
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": str(10**8)}
    command = python_command("tests.run.test_spinning:spin", ["-++-+"])
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    spent = json.loads(done.stdout)
    assert [seconds > 0.05 for seconds in spent] == [True, False, False, True, False], spent


@LINUX
def test_a_step_is_watched_unless_the_user_says_how_threads_wait(monkeypatch):
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    let_threads_spin()
    assert "GOMP_SPINCOUNT" not in os.environ
    watch(2)
    assert all(thread.name != "spinning" for thread in threading.enumerate())
    monkeypatch.delenv("OMP_WAIT_POLICY")
    let_threads_spin()
    assert os.environ["GOMP_SPINCOUNT"] == "300000"
    monkeypatch.setenv("GOMP_SPINCOUNT", "17")
    let_threads_spin()
    assert os.environ["GOMP_SPINCOUNT"] == "17"


def test_where_delays_are_not_told_threads_always_sleep(monkeypatch, tmp_path):
    monkeypatch.setattr(spinning, "_TASKS", tmp_path / "no proc")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    let_threads_spin()
    assert "GOMP_SPINCOUNT" not in os.environ
