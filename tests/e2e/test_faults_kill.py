"""Fault 1: kill -9 of the build at any moment. The next one goes on, and the result is an uninterrupted one's."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.builder import MOMENTS
from tests.e2e.builds import (
    CHECKPOINT_EVERY,
    assert_sound,
    eventually,
    faults_project,
    made,
    processes,
    recorded_steps,
    runs,
    started,
)
from tests.helpers.project import ROOT

KILLS = 50
MOST_KILLS = 100
"""Until a kill has met a training, from which the next build goes on."""

LONGEST = 2.0
"""Seconds after its start at which a build is killed at the latest: longer than any of its steps takes."""

MOMENTS_EACH = 2


@dataclass
class Tally:
    """What happened over all kills."""

    kills: int = 0
    families: int = 0
    finished_before_a_kill: int = 0
    run_again: int = 0
    killed_inside: Counter[str] = field(default_factory=Counter)
    resumed: int = 0
    most_lost: float = 0.0
    slowest_end: float = 0.0

    def goes_on(self) -> bool:
        return self.kills < (KILLS if self.resumed else MOST_KILLS)

    def counts(self) -> dict[str, Any]:
        inside = ", ".join(f"{number} {op}" for op, number in self.killed_inside.most_common())
        return {
            "kills": self.kills,
            "families finished": self.families,
            "steps finished before a kill": self.finished_before_a_kill,
            "of these run again": self.run_again,
            "kills inside a step": f"{sum(self.killed_inside.values())} ({inside})",
            "trainings resumed from a checkpoint": self.resumed,
            "most of a training lost": f"{self.most_lost:.2f} s (a checkpoint each {CHECKPOINT_EVERY} s)",
            "slowest end of the last process": f"{self.slowest_end:.2f} s",
        }


@dataclass
class Training:
    """What the record of a build tells of a training in it.

    Attributes:
        resumed: After how many of its steps it went on; 0: it began anew.
        began: When it was first heard of.
        said: Its step -> when it said to have done it.
    """

    resumed: int
    began: float
    said: dict[int, float]

    def lost(self, after: Training) -> tuple[float, float]:
        """The seconds of it that are to be done again, as the next run of it shows, and how many that may be.

        That is what lies between two checkpoints, and the training steps and the writing that each has to wait for.
        """
        times = [self.began, *self.said.values()]
        slowest = max(second - first for first, second in pairwise(times))
        if after.resumed >= max(self.said):
            # Of the last steps nobody has heard.
            return 0.0, CHECKPOINT_EVERY
        return times[-1] - self.said.get(after.resumed, self.began), CHECKPOINT_EVERY + 2 * slowest


def trainings(events: list[dict[str, Any]]) -> dict[str, Training]:
    """The trainings in a build, by their steps."""
    found: dict[str, Training] = {}
    for event in events:
        if event["event"] == "step_progress" and event["progress"]["phase"].startswith("step "):
            phase = event["progress"]["phase"]
            place = int(phase.split()[1].split("/")[0])
            training = found.setdefault(
                event["step"], Training(place if phase.endswith("resumed") else 0, event["time"], {})
            )
            training.said[place] = event["time"]
    return found


class Killed:
    """One family that is killed again and again until it is done."""

    def __init__(self, builder, project: Path, cores: int, tally: Tally) -> None:
        self.builder, self.project, self.store, self.tally = builder, project, project / ".colbuild", tally
        self.options = ("--json", "--cores", str(cores))
        self.finished: set[str] = set()
        self.trainings: dict[str, Training] = {}

    def strike(self, after: float | None = None, moment: str | None = None) -> bool:
        """Builds and kills, after some time or at a moment; says whether the build was done before that."""
        known = len(runs(self.store))
        build = self.builder.start(self.project, *self.options, moment=moment)
        if after is not None:
            time.sleep(after)
            build.kill()
        ended = build.wait()
        assert ended.code in (0, -signal.SIGKILL), ended.err
        assert "Traceback" not in ended.err
        took = eventually(lambda: not processes(build.pid))
        assert took is not None, "every process of a killed build ends by itself"
        self.tally.slowest_end = max(self.tally.slowest_end, took)
        told = runs(self.store)
        for events in told[known:]:
            again = self.finished & set(started(events))
            self.tally.run_again += len(again)
            assert not again, "what was finished before a kill is not run again"
            self._check_lost(trainings(events))
        self.finished = recorded_steps(self.store)
        if ended.code == 0:
            return True
        self.tally.kills += 1
        self.tally.finished_before_a_kill += len(self.finished)
        for events in told[known:]:
            self.tally.killed_inside.update(step.split()[0] for step in set(started(events)) - self.finished)
        return False

    def _check_lost(self, now: dict[str, Training]) -> None:
        for step in now.keys() & self.trainings.keys():
            seconds, allowed = self.trainings[step].lost(now[step])
            assert seconds <= allowed, f"{step} lost {seconds} s of its training, {allowed} s at most were expected"
            self.tally.resumed += now[step].resumed > 0
            self.tally.most_lost = max(self.tally.most_lost, seconds)
        self.trainings |= now

    def finish(self, expected) -> None:
        """Builds to the end and compares with a family that nobody killed."""
        assert self.strike()
        assert made(self.project) == expected
        assert_sound(self.store)
        assert list((self.store / "quarantine").iterdir()) == []
        assert self.builder.build(self.project, *self.options).code == 0
        assert list(self.project.glob("out/**/.*")) == []
        self.tally.families += 1


@pytest.fixture(scope="module")
def uninterrupted(builder, tmp_path_factory, tiny_inputs):
    """Cores -> a family that nobody killed."""
    found = {}
    for cores in (1, 2):
        project = faults_project(tmp_path_factory.mktemp("uninterrupted") / "project", tiny_inputs)
        assert builder.build(project, "--json", "--cores", str(cores)).code == 0
        found[cores] = made(project)
    return found


@pytest.mark.slow
def test_build_that_is_killed_at_random_moments_loses_nothing(builder, tmp_path, tiny_inputs, uninterrupted, count):
    rng, tally, fruitless = random.Random(5), Tally(), 0
    while tally.goes_on():
        cores = 1 + tally.families % 2
        family = Killed(builder, faults_project(tmp_path / str(tally.families), tiny_inputs), cores, tally)
        done = False
        while not done and tally.goes_on():
            before = len(family.finished)
            # On a machine that has other things to do, a step may take longer than that.
            done = family.strike(after=rng.uniform(0.02, LONGEST * 1.5 ** (fruitless // 4)))
            fruitless = 0 if len(family.finished) > before else fruitless + 1
        family.finish(uninterrupted[cores])
    assert tally.resumed > 0
    count(**tally.counts())


@pytest.mark.slow
def test_build_that_is_killed_at_the_worst_moments_loses_nothing(builder, tmp_path, tiny_inputs, uninterrupted, count):
    tally, rng, family = Tally(), random.Random(3), None
    for moment in sorted(MOMENTS) * MOMENTS_EACH:
        came = False
        while not came:
            if family is None:
                family = Killed(builder, faults_project(tmp_path / str(tally.families), tiny_inputs), 1, tally)
            # Some way first, so that not every moment strikes the same step.
            family.strike(after=rng.uniform(0.3, LONGEST / 2))
            came = not family.strike(moment=moment)
            if not came:
                # No training or nothing to place was left.
                family.finish(uninterrupted[1])
                family = None
    if family is not None:
        family.finish(uninterrupted[1])
    count(moments=len(MOMENTS), **tally.counts())


@pytest.mark.slow
def test_killed_command_leaves_no_process_behind(project, count):
    """The command as people run it: also while its nursery still imports torch."""
    rng, slowest, kills = random.Random(7), 0.0, 6
    for _ in range(kills):
        command = [sys.executable, "-m", "colbuild", "build", "specs/tiny.yaml", "--json"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with subprocess.Popen(
            command, cwd=project, env=environment, stdout=subprocess.DEVNULL, start_new_session=True
        ) as build:
            time.sleep(rng.uniform(0.5, 6.0))
            build.kill()
        # The system kills them; two seconds are promised, and a test's machine may be busy.
        took = eventually(lambda session=build.pid: not processes(session), 5.0)
        assert took is not None, "what a killed build has started ends by itself"
        slowest = max(slowest, took)
    count(kills=kills, slowest_end_of_the_last_process=f"{slowest:.1f} s")
