"""A lock is held by one at a time, however its holder ends, and scratch places do not outlive their makers."""

from __future__ import annotations

import os
import threading

import pytest

from colbuild.store import open_store
from colbuild.store.locks import hold, remove, remove_stale, scratch_file, scratch_path
from tests.store.processes import let_go, other


def fail():
    raise AssertionError("there was nobody to wait for")


def test_free_lock_is_held_without_waiting_and_leaves_no_file(tmp_path):
    for _ in range(2):
        with hold(tmp_path / "a.lock", fail):
            assert (tmp_path / "a.lock").exists()
        assert list(tmp_path.iterdir()) == []


def test_different_locks_do_not_wait_for_each_other(tmp_path):
    with hold(tmp_path / "a.lock", fail), hold(tmp_path / "b.lock", fail):
        pass


def test_waiter_is_told_before_it_waits_and_goes_on_when_the_lock_is_free(tmp_path):
    lock = tmp_path / "a.lock"
    told = []
    with other("hold", str(lock)) as process:

        def on_wait():
            told.append(process.poll())
            let_go(process)

        with hold(lock, on_wait):
            assert told == [None]
            assert process.wait(timeout=10) == 0
    assert list(tmp_path.iterdir()) == []


def test_killed_holder_frees_its_lock(tmp_path):
    lock = tmp_path / "a.lock"
    with other("hold", str(lock)) as process, hold(lock, process.kill):
        assert process.wait(timeout=10) == -9
    assert list(tmp_path.iterdir()) == []


def test_lock_holds_between_threads_too(tmp_path):
    inside, most, waits = [], [], []
    start = threading.Barrier(4)

    def work():
        start.wait()
        for _ in range(25):
            with hold(tmp_path / "a.lock", lambda: waits.append(1)):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 100
    assert set(most) == {1}


def test_scratch_is_gone_at_the_end_whatever_happens(tmp_path):
    with pytest.raises(ZeroDivisionError), scratch_path(tmp_path) as path:
        assert not path.exists()
        (path / "deep").mkdir(parents=True)
        (path / "deep/file").write_text("x")
        (path / "deep").chmod(0o555)
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_stale_scratch_is_removed_and_live_scratch_stays(tmp_path):
    with other("scratch", str(tmp_path)) as process:
        process.kill()
        process.wait(timeout=10)
    dead = {path.name for path in tmp_path.iterdir()}
    assert len(dead) == 2, "the killed process left its scratch and its lock"
    (tmp_path / "without-a-lock").mkdir()
    with other("scratch", str(tmp_path)) as process, scratch_path(tmp_path) as mine:
        mine.write_text("mine")
        remove_stale(tmp_path)
        left = {path.name for path in tmp_path.iterdir()}
        assert not left & dead
        assert "without-a-lock" not in left
        assert mine.read_text() == "mine"
        assert len(left) == 4, "two live scratches with their locks"
        let_go(process)
        assert process.wait(timeout=10) == 0
    assert list(tmp_path.iterdir()) == []


def test_file_on_its_way_is_nobody_elses_to_remove_and_a_dead_one_is(tmp_path):
    with scratch_file(tmp_path) as (path, descriptor):
        os.write(descriptor, b"mine")
        remove_stale(tmp_path)
        assert path.read_bytes() == b"mine"
        # What a process that was killed left: the same, and nobody holds it.
        path.with_stem("dead").write_bytes(b"half")
        remove_stale(tmp_path)
        assert [left.name for left in tmp_path.iterdir()] == [path.name]
        path.rename(tmp_path / "placed")
    assert [left.name for left in tmp_path.iterdir()] == ["placed"]


def test_preparing_a_store_clears_what_a_killed_build_left(tmp_path):
    store = open_store(tmp_path / "store")
    store.prepare()
    with other("scratch", str(store.root / "tmp")) as process:
        process.kill()
        process.wait(timeout=10)
    assert len(list((store.root / "tmp").iterdir())) == 2
    store.prepare()
    assert list((store.root / "tmp").iterdir()) == []


def test_removing_follows_no_link(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").write_text("x")
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone/link").symlink_to(tmp_path / "kept")
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    for name in ("gone", "link", "was never there"):
        remove(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept/file").read_text() == "x"
