"""File systems without locks: builds work, do not disturb each other on one machine, and leave others' drafts alone."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
import threading
import time
from pathlib import Path

import pytest

from colbuild.store import open_store
from colbuild.store.collecting.collector import collect
from colbuild.store.leases import is_held
from colbuild.store.locks import hold, remove_stale, scratch_path
from tests.store.little import build, content


@pytest.fixture(params=[errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS], ids=errno.errorcode.get)
def lockless(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on a file system without locks; this machine's folder for temporary files has them."""
    folder, temporary = tmp_path / "remote", tmp_path / "temporary"
    folder.mkdir()
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    real = fcntl.flock

    def flock(file, operation):
        descriptor = file if isinstance(file, int) else file.fileno()
        if Path(f"/proc/self/fd/{descriptor}").readlink().is_relative_to(folder):
            raise OSError(request.param, os.strerror(request.param))
        return real(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    return folder


def test_a_build_works_without_locks(lockless: Path, tmp_path: Path) -> None:
    assert len(build(open_store(lockless / "store"), lockless / "out")) == 3
    assert build(open_store(lockless / "store"), lockless / "out") == []
    assert build(open_store(tmp_path / "store"), tmp_path / "out")
    assert content(lockless / "out") == content(tmp_path / "out")
    assert not list((lockless / "store" / "locks").iterdir())
    assert not list((lockless / "store" / "tmp").iterdir())
    assert not list((tmp_path / "temporary").glob("*/*"))


def test_builds_on_one_machine_exclude_each_other_all_the_same(lockless: Path) -> None:
    inside, most = [], []

    def work() -> None:
        for _ in range(10):
            with hold(lockless / "a.lock"):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.001)
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 30
    assert max(most) == 1


def test_a_draft_that_another_machine_may_work_on_is_left_alone(lockless: Path) -> None:
    young, old = lockless / ("a" * 32), lockless / ("b" * 32)
    for path in (young, old):
        path.mkdir()
    os.utime(old, (0, 0))
    with scratch_path(lockless) as mine:
        mine.mkdir()
        os.utime(mine, (0, 0))
        remove_stale(lockless)
        assert {path.name for path in lockless.iterdir() if path.is_dir()} == {young.name, mine.name}


def test_records_and_garbage_can_be_looked_at(lockless: Path) -> None:
    store = open_store(lockless / "store")
    build(store, lockless / "out")
    (store.layout.folder("runs") / "x.jsonl").write_text("{}")
    assert not is_held(store.layout.folder("runs") / "x.jsonl")
    collect(store, delete=True)
    assert not list((store.root / "tmp").iterdir())


def test_without_any_locks_there_is_nothing_to_hold(lockless: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(lockless))
    with hold(lockless / "a.lock"):
        pass
    assert not (lockless / "a.lock").exists()
