"""Stores that may only be read: shared, of another owner, on a read-only mount. A fresh checkout gets its results there."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from colbuild.store import open_store
from tests.helpers.modes import obey_modes
from tests.helpers.project import ROOT
from tests.store.little import build, content

SCRIPT = """
import sys
from pathlib import Path
from colbuild.errors import BuildError
from colbuild.store import open_store
from tests.store.little import build
try:
    print("ran", build(open_store(Path(sys.argv[1])), Path(sys.argv[2]), sys.argv[3]))
except BuildError as error:
    print(error.message, "|", error.hint)
"""
NOBODY = 65534


def as_somebody_else(work: Callable[[], object]) -> str:
    """What some work gives, as text, in a process of another user's, which may not read this interpreter's own files."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            told = str(work())
        except BaseException as error:  # noqa: BLE001  (told to the parent)
            told = repr(error)
        os.write(writing, told.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return text


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder with a store of somebody's that everybody may read, and an empty folder that everybody may write to."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        build(open_store(folder / "store"), folder / "first")
        (folder / "mine").mkdir()
        (folder / "mine").chmod(0o777)
        closed(folder / "store")
        yield folder
        for path in [folder / "store", *(path for path in (folder / "store").rglob("*") if path.is_dir())]:
            path.chmod(0o755)


def closed(store: Path, mode: int = 0o555) -> None:
    for path in [store, *store.rglob("*")]:
        path.chmod(mode if path.is_dir() else mode & 0o444 | 0o444)


def run(folder: Path, version: str = "1") -> str:
    command = [sys.executable, "-B", "-c", SCRIPT, str(folder / "store"), str(folder / "mine" / "out"), version]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(folder / "mine")}
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=obey_modes,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("other", [False, True], ids=["modes", "another user"])
def test_a_fresh_checkout_gets_its_results_out_of_a_store_that_it_may_only_read(shared: Path, other: bool) -> None:
    if other and os.geteuid() != 0:
        pytest.skip("only root becomes somebody else")
    before = content(shared / "store")
    for _ in range(2):
        if other:
            found = as_somebody_else(lambda: build(open_store(shared / "store"), shared / "mine" / "out"))
            assert found == "[]"
        else:
            assert run(shared) == "ran []"
        assert content(shared / "mine" / "out") == content(shared / "first")
        assert sorted(path.name for path in (shared / "mine" / "out").iterdir()) == ["model", "package", "source"]
    assert content(shared / "store") == before


def test_what_the_owner_built_anew_replaces_what_was_placed_before(shared: Path) -> None:
    assert run(shared) == "ran []"
    closed(shared / "store", 0o755)
    build(open_store(shared / "store"), shared / "first", "2")
    closed(shared / "store")
    edited = shared / "mine" / "out" / "package" / "notes.txt"
    edited.write_text("mine")
    assert run(shared, "2") == "ran []"
    names = sorted(path.name for path in (shared / "mine" / "out").iterdir())
    # Only what the user changed is kept aside.
    assert [name.split(".")[0] for name in names] == ["model", "package", "package", "source"]
    assert any((shared / "mine" / "out" / name / "notes.txt").exists() for name in names)


def test_what_has_to_be_built_needs_another_store(shared: Path) -> None:
    assert run(shared, "3").startswith(f"cannot write {shared / 'store'}")
    assert "--store" in run(shared, "3")


def test_a_read_only_mount_says_so_in_other_words_and_works_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(open_store(tmp_path / "store"), tmp_path / "first")
    before = content(tmp_path / "store")
    refused: list[str] = []
    real_open, real_mkdir, real_utime = os.open, os.mkdir, os.utime

    def inside(path: object) -> bool:
        return isinstance(path, str | Path) and Path(path).is_relative_to(tmp_path / "store")

    def deny(path: object) -> None:
        refused.append(str(path))
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    def open_(path, flags, mode=0o777, **how):
        if inside(path) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            deny(path)
        return real_open(path, flags, mode, **how)

    def mkdir(path, mode=0o777, **how):
        if inside(path) and not Path(path).exists():
            deny(path)
        return real_mkdir(path, mode, **how)

    def utime(path, *rest, **how):
        if inside(path):
            deny(path)
        return real_utime(path, *rest, **how)

    monkeypatch.setattr(os, "open", open_)
    monkeypatch.setattr(os, "mkdir", mkdir)
    monkeypatch.setattr(os, "utime", utime)
    assert build(open_store(tmp_path / "store"), tmp_path / "out") == []
    assert refused
    assert content(tmp_path / "out") == content(tmp_path / "first")
    assert content(tmp_path / "store") == before
