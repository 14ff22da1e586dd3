"""Fault 3: several builds at once on one store. Each step is made by one of them, and the others wait for it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.e2e.builds import (
    SPEC,
    STEPS,
    assert_sound,
    assert_whole,
    eventually,
    faults_project,
    made,
    runs,
    started,
    starts,
)
from tests.helpers.project import ROOT


def _assert_each_ran_once(store, good):
    ran = starts(store)
    assert set(ran.values()) == {1}, ran
    # Two steps that make the same result from the same inputs are one action.
    assert len(ran) == STEPS == len(good.made.steps)
    assert_sound(store)


@pytest.mark.slow
@pytest.mark.parametrize("number", [2, 8])
def test_builds_at_once_share_the_work(builder, good, tmp_path, tiny_inputs, number, count):
    project = faults_project(tmp_path / "project", tiny_inputs)
    builds = [builder.start(project, "--json") for _ in range(number)]
    ended = [build.wait() for build in builds]
    assert [one.code for one in ended] == [0] * number, "\n".join(one.err for one in ended)
    assert made(project) == good.made
    _assert_each_ran_once(project / ".colbuild", good)
    waits = sum(one.out.count("waiting for another build that makes it") for one in ended)
    shares = [one.out.count('"step_finished"') for one in ended]
    count(builds=number, steps_run=sum(shares), by_each=shares, waits=waits, all_succeeded=True)


@pytest.mark.slow
def test_builds_of_several_projects_at_once_share_one_store(builder, good, tmp_path, tiny_inputs, count):
    """Projects elsewhere, with the same inputs: only places in `out/` are their own."""
    projects = [faults_project(tmp_path / str(number), tiny_inputs) for number in range(3)]
    store = tmp_path / "store"
    builds = [builder.start(project, "--json", "--store", str(store)) for project in projects]
    ended = [build.wait() for build in builds]
    assert [one.code for one in ended] == [0] * 3, "\n".join(one.err for one in ended)
    for project in projects:
        assert made(project, store) == good.made
    _assert_each_ran_once(store, good)
    count(builds=3, steps_run=sum(starts(store).values()))


@pytest.mark.slow
def test_a_build_goes_on_when_the_one_that_it_waits_for_is_killed(good, tmp_path, tiny_inputs, count):
    """As people start them, each with an import of torch of its own."""
    project = faults_project(tmp_path / "project", tiny_inputs)
    command = [sys.executable, "-m", "colbuild", "build", SPEC, "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    builds = [
        subprocess.Popen(command, cwd=project, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for _ in range(2)
    ]
    assert eventually(lambda: _at_work(project, "distill large"), 120.0) is not None
    [killed] = [build for build in builds if build.pid == _at_work(project, "distill large")]
    killed.kill()
    killed.communicate()
    [other] = [build for build in builds if build is not killed]
    out, _ = other.communicate(timeout=240)
    assert other.returncode == 0, out
    assert made(project) == good.made
    # What the killed one was writing is cleared away by the next build that writes.
    assert_whole(project / ".colbuild")
    ran = starts(project / ".colbuild")
    assert {step: number for step, number in ran.items() if number > 1} == {"distill large": 2}
    assert len(ran) == STEPS
    count(builds=2, killed=1, steps_begun=sum(ran.values()))


def _at_work(project, step):
    """The process of the build that has begun a step; None if none has."""
    for events in runs(project / ".colbuild"):
        if step in started(events):
            return events[0]["pid"]
    return None
