"""A store and a project of another user, which may only be read: every command works, or says in one message why it cannot."""

from __future__ import annotations

import contextlib
import encodings.ascii
import encodings.idna  # noqa: F401
import io
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

import colbuild.fetch.texts.readers  # noqa: F401  (another user could not import it)
from colbuild.cli.app import run_command
from colbuild.errors import EXIT_FAILED, EXIT_WORK_PENDING
from tests.helpers.project import Ran, copy_project
from tests.store.little import content, damage

NOBODY = 65534
SPEC = "specs/tiny.yaml"
PACKAGE = "out/tiny/least/tiny-int8"
READING = (
    ("plan", SPEC, "--exit-code"),
    ("status", SPEC),
    ("why", "least", SPEC),
    ("build", SPEC),
    ("cache", "ls"),
    ("cache", "gc"),
    ("cache", "verify"),
    ("verify", PACKAGE),
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user"),
]


def run(folder: Path, *arguments: str, user: int | None = NOBODY) -> Ran:
    """Runs colbuild in a folder, in a forked process of another user, which could not read this interpreter's own files."""
    with tempfile.TemporaryDirectory() as name:
        told = Path(name)
        files = [(told / stream).open("w+b") for stream in ("out", "err")]
        child = os.fork()
        if child == 0:
            code = 99
            try:
                for number, file in enumerate(files, 1):
                    os.dup2(file.fileno(), number)
                os.chdir(folder)
                os.environ |= {"HOME": "/nonexistent", "COLUMNS": "200", "COLBUILD_CACHE": "/nonexistent"}
                os.environ.pop("COLBUILD_STORE", None)
                if user is not None:
                    os.setgroups([])
                    os.setgid(user)
                    os.setuid(user)
                sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
                code = run_command(list(arguments))
                sys.stdout.flush()
                sys.stderr.flush()
            except BaseException:  # noqa: BLE001  (told to the parent)
                os.write(2, traceback.format_exc().encode())
            os._exit(code)
        _, status = os.waitpid(child, 0)
        out, err = ((told / stream).read_text() for stream in ("out", "err"))
        for file in files:
            file.close()
    assert "Traceback" not in out + err, err
    return Ran(os.waitstatus_to_exitcode(status), out, err)


@pytest.fixture(scope="module")
def theirs(finished_project, tiny_inputs) -> Iterator[Path]:
    """Root's project with its store, which everybody may read."""
    # Not below pytest's own folders, which nobody else may enter.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "project"
        Path(name).chmod(0o755)
        shutil.copytree(finished_project[0], folder)
        for path in folder.rglob("*"):
            # The fixture's own folders are closed to others.
            path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))
        # Once as its owner: stamps and places are noted, and this process has imported what a command needs.
        with (
            contextlib.chdir(folder),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            for arguments in READING:
                assert run_command(list(arguments)) == 0, arguments
        yield folder


@pytest.fixture
def mine(theirs, tiny_inputs) -> Iterator[Path]:
    """A fresh checkout of the same project, of the other user's."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        folder = Path(name) / "mine"
        folder.mkdir()
        copy_project(folder, tiny_inputs)
        shutil.copy(theirs / "specs/tiny.lock", folder / "specs")
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, NOBODY, NOBODY)
        yield folder


@pytest.mark.parametrize("arguments", READING, ids=lambda arguments: " ".join(arguments[:2]))
def test_in_a_project_of_another_user_what_only_reads_works(theirs, arguments):
    before = content(theirs)
    ran = run(theirs, *arguments)
    assert ran.code == 0, ran.out + ran.err
    assert content(theirs) == before


@pytest.mark.parametrize(
    "arguments",
    [("cache", "gc", "--delete"), ("cache", "pin", "least", SPEC), ("cache", "gc", "--delete", "--forget")],
    ids=" ".join,
)
def test_in_a_project_of_another_user_what_writes_says_that_it_cannot(theirs, arguments):
    before = content(theirs)
    ran = run(theirs, *arguments)
    assert ran.code == EXIT_FAILED
    assert f"cannot write {theirs}/.colbuild" in ran.err.replace("\n", "")
    assert content(theirs) == before


def test_fresh_checkout_is_built_out_of_a_store_of_another_user(theirs, mine):
    before, store = content(theirs), ("--store", str(theirs / ".colbuild"))
    assert run(mine, "plan", SPEC, *store, "--exit-code").code == 0
    ran = run(mine, "build", SPEC, *store)
    assert ran.code == 0, ran.out + ran.err
    assert content(mine / "out") == content(theirs / "out")
    assert run(mine, "status", SPEC, *store).code == 0
    assert run(mine, "verify", PACKAGE).code == 0
    assert content(theirs) == before
    # The store is its owner's to look after, so nothing was noted here either.
    assert not (mine / ".colbuild").exists()


def test_changed_family_says_how_to_build_beside_a_store_of_another_user(theirs, mine):
    path = next((mine / ".tiny").glob("*.txt"))
    path.write_text(path.read_text() + "another line of text\n")
    store = ("--store", str(theirs / ".colbuild"))
    assert run(mine, "plan", SPEC, *store, "--exit-code").code == EXIT_WORK_PENDING
    ran = run(mine, "build", SPEC, *store)
    assert ran.code == EXIT_FAILED
    assert "--remote file://" in ran.err.replace("\n", "")


def test_damage_in_a_store_of_another_user_is_told(theirs):
    path = max(theirs.glob(".colbuild/objects/*/*/files/*.safetensors"))
    good, status = path.read_bytes(), path.stat()
    damage(path, "silent flip")
    try:
        ran = run(theirs, "cache", "verify")
        assert ran.code == EXIT_FAILED
        assert "cannot write" in ran.err
    finally:
        path.chmod(0o644)
        with path.open("r+b") as file:
            file.write(good)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        path.chmod(status.st_mode & 0o777)


@pytest.mark.parametrize("closed", [".colbuild", ".colbuild/objects", ".colbuild/roots", ".tiny", "specs", "out"])
@pytest.mark.parametrize("arguments", READING, ids=lambda arguments: " ".join(arguments[:2]))
def test_what_may_not_be_read_either_is_told(theirs, closed, arguments):
    folder = theirs / closed
    mode = folder.stat().st_mode & 0o777
    folder.chmod(0o700)
    try:
        ran = run(theirs, *arguments)
        assert ran.code in (0, 1, 2, 3, 5)
        assert ran.code == 0 or ran.err + ran.out
    finally:
        folder.chmod(mode)
