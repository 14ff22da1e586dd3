"""The process that the processes of steps are forked from."""

from __future__ import annotations

import os
from pathlib import Path

from colbuild.fetch.contents import Sources
from colbuild.run.process import nursery, worker
from colbuild.run.process.job import Job
from tests.helpers.steps import named_step


def serve_briefly(descriptor: str) -> None:
    """A nursery whose children end at once, each with a code of its own."""
    worker.work = lambda job, connection, parent: os._exit(job.index % 100)
    nursery.import_before_fork = lambda: None
    nursery.serve(descriptor)


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
