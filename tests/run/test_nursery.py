"""The process that the processes of steps are forked from."""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from colbuild.fetch.contents import Sources
from colbuild.run.process import nursery, worker
from colbuild.run.process.job import Job
from tests.helpers.steps import named_step


def serve_briefly(descriptor: str) -> None:
    """A nursery whose children end at once, each with a code of its own."""
    worker.work = lambda job, connection, parent: os._exit(job.index % 100)
    nursery.import_before_fork = lambda: None
    nursery.serve(descriptor)


def serve_watched(descriptor: str) -> None:
    """A nursery whose children say by their code whether anything watches how their threads wait."""
    nursery.import_before_fork = lambda: __import__("torch")
    worker.work = lambda job, connection, parent: os._exit(watched(job))
    nursery.serve(descriptor)


def watched(job: Job) -> int:
    worker._limit(job)
    return 7 if any(thread.name == "spinning" for thread in threading.enumerate()) else 3


def job(folder: Path, number: int) -> Job:
    sources = Sources(folder, folder, {})
    return Job(named_step("a", "evaluate", {}, {}), number, 1, "fam", {}, folder, sources, 1, (), folder / "log")


def test_children_without_end_come_and_go_whether_or_not_anybody_asks_how_they_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(nursery, "_SERVE", "tests.run.test_nursery:serve_briefly")
    with nursery.open_nursery() as opened:
        for number in range(400):
            child = opened.start(job(tmp_path, number))
            assert child.connection.poll(30), f"child {number} did not come"
            child.connection.close()
            if number % 150 == 37:
                assert opened.ended_by(child) == number % 100
    assert not any(os.scandir(tmp_path))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere threads always sleep")
@pytest.mark.parametrize(("policy", "threads", "code"), [(None, 2, 7), (None, 1, 3), ("passive", 2, 3)])
def test_a_step_with_several_threads_is_watched_unless_the_user_says_how_they_wait(
    tmp_path, monkeypatch, policy, threads, code
):
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if policy is not None:
        monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    monkeypatch.setattr(nursery, "_SERVE", "tests.run.test_nursery:serve_watched")
    with nursery.open_nursery() as opened:
        child = opened.start(replace(job(tmp_path, 1), threads=threads))
        assert child.connection.poll(60)
        child.connection.close()
        assert opened.ended_by(child) == code
