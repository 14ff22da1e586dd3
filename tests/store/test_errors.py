"""What a disk refuses is said in plain words, with the place and the next thing to try."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from colbuild.errors import BuildError
from colbuild.store import locks, objects, open_store
from colbuild.store.durable_files import storage_error, storage_errors
from tests.store.processes import RECORD, fill


@pytest.mark.parametrize(
    ("code", "message", "hint"),
    [
        (
            errno.ENOSPC,
            "the disk is full: cannot write {file} (",
            "--store or COLBUILD_STORE; then run the build again, which keeps finished steps",
        ),
        (errno.EDQUOT, "the disk is full: cannot write {file} (", "free some space"),
        (errno.EFBIG, "a limit on the size of files is reached: cannot write {file} (", "ulimit -f"),
        (errno.EACCES, "cannot write {file}: permission denied", "who owns it"),
        (errno.EPERM, "cannot write {file}: operation not permitted", "who owns it"),
        (errno.EROFS, "cannot write {file}: read-only file system", "another store"),
        (errno.EIO, "cannot use {file}: input/output error", None),
    ],
)
def test_each_refusal_has_its_words(tmp_path, code, message, hint):
    file = tmp_path / "weights"
    error = storage_error(OSError(code, os.strerror(code), str(file)), tmp_path)
    assert error.message.startswith(message.format(file=file))
    assert error.hint is None if hint is None else hint in error.hint
    assert error.exit_code == 1


def test_error_without_a_file_names_the_place_it_happened_at(tmp_path):
    error = storage_error(OSError(errno.ENOSPC, "No space left on device"), tmp_path / "not/there/yet")
    assert error.message.startswith(f"the disk is full: cannot write {tmp_path / 'not/there/yet'} (")
    assert error.message.endswith(" MB free)")


def test_other_errors_pass_unchanged(tmp_path):
    with pytest.raises(ZeroDivisionError), storage_errors(tmp_path):
        raise ZeroDivisionError


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_full_disk_during_a_step_leaves_nothing_and_loses_nothing(tmp_path):
    store = open_store(tmp_path / "store")
    kept = fill(store, {"weights": b"w"})
    with pytest.raises(BuildError, match="the disk is full"), store.draft() as draft:
        (draft / "files/half").write_bytes(b"half")
        Path("/dev/full").write_bytes(b"the rest")
    assert [path.name for path in (store.root / "objects").glob("*/*")] == [kept]
    assert list((store.root / "tmp").iterdir()) == []


def test_limit_on_file_sizes_is_said(tmp_path):
    script = (
        "import resource, sys; from pathlib import Path; from colbuild.store import open_store\n"
        "store = open_store(Path(sys.argv[1])); store.prepare()\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "try:\n"
        "    with store.draft() as draft: (draft / 'files/weights').write_bytes(bytes(20_000))\n"
        "except Exception as error: print(type(error).__name__, error.message)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "store")], capture_output=True, text=True, check=True, timeout=60
    )
    assert run.stdout.startswith("BuildError a limit on the size of files is reached: cannot write ")
    assert list((tmp_path / "store/tmp").iterdir()) == []


@pytest.fixture
def refusing(monkeypatch):
    """Makes one of the store's calls to the system fail, as on a disk that this user may not write."""

    def refuse(module, name):
        def fail(path, *_, **__):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

        monkeypatch.setattr(module, name, fail)

    return refuse


def test_store_that_may_not_be_written_is_told_by_every_way_of_writing(tmp_path, refusing):
    store = open_store(tmp_path / "store")
    digest = fill(store, {"weights": b"w"})
    refusing(locks, "_lock")
    record = replace(RECORD, output=digest)
    ways = {
        "hold": lambda: store.hold("k" * 64, lambda: None).__enter__(),
        "draft": lambda: store.draft().__enter__(),
        "record": lambda: store.record("fam", record),
        "remember": lambda: store.remember("config", digest, 1),
        "place": lambda: store.place(digest, tmp_path / "out"),
    }
    for name, way in ways.items():
        with pytest.raises(BuildError) as caught:
            way()
        assert caught.value.message.startswith(f"cannot write {store.root}"), name
        assert caught.value.message.endswith(": permission denied"), name
    # What only explains a later plan is left out without a word.
    store.note_step("fam", record)
    assert store.last("fam", record.step) is None


def test_damaged_tree_that_cannot_be_moved_is_told(tmp_path, monkeypatch):
    store = open_store(tmp_path / "store")
    record = replace(RECORD, output=fill(store, {"weights": b"w"}))
    store.record("fam", record)
    store.layout.tree(record.output).unlink()

    def refuse(_, digest):
        raise PermissionError(errno.EACCES, "Permission denied", digest)

    monkeypatch.setattr("colbuild.store.checking.quarantine", refuse)
    with pytest.raises(BuildError, match="permission denied"):
        store.set_aside_damaged(record.key)
    assert objects.look(store.layout, record.output).damage is not None


def test_waiters_own_error_while_holding_is_not_taken_for_the_stores(tmp_path):
    store = open_store(tmp_path / "store")
    store.prepare()
    with pytest.raises(FileNotFoundError), store.hold("k" * 64, lambda: None):
        raise FileNotFoundError
    assert list((store.root / "locks").iterdir()) == []
