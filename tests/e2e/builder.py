"""A process that has imported torch once and forks whole builds from it, so that a hundred of them take a test minutes.

Each build is what the command is: a process that runs the command line, its nursery, and a process for each step. Only the
import of torch is shared. It may be told to die by SIGKILL or to fill the disk at a chosen moment, and to obey a limit
on the size of files.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from colbuild.cli.app import run_command
from colbuild.run import executor
from colbuild.run.history import build_record as record
from colbuild.run.process import nursery
from colbuild.run.process.nursery import import_before_fork
from colbuild.store import Store, objects, outputs
from colbuild.train.loop import training_state as state
from colbuild.train.loop.state_tensors import bytes_of

# -- the moments ------------------------------------------------------------------------------------------------------

MOMENTS: dict[str, Callable[[Callable[[], None]], None]] = {}
"""Name -> what makes a process do something at that moment, and then go on if it still can."""


def _moment(make: Callable[[Callable[[], None]], None]) -> Callable[[Callable[[], None]], None]:
    MOMENTS[make.__name__.strip("_").replace("_", " ")] = make
    return make


@_moment
def _before_the_rename(then: Callable[[], None]) -> None:
    """All of a result is written and synced; it has not its name yet."""
    seal = objects.seal_tree

    def sealed(root: Path) -> None:
        seal(root)
        then()

    objects.seal_tree = sealed


@_moment
def _before_the_record(then: Callable[[], None]) -> None:
    """The result has its name; no action says so."""
    publish = Store.publish

    def published(self: Store, draft: Path) -> objects.Tree:
        tree = publish(self, draft)
        then()
        return tree

    Store.publish = published  # type: ignore[method-assign]


@_moment
def _after_the_record(then: Callable[[], None]) -> None:
    """The action is recorded; nobody has heard that the step is done, and its checkpoints are still there."""
    forget = Store.forget_partial

    def forgotten(self: Store, key: str) -> None:
        then()
        forget(self, key)

    Store.forget_partial = forgotten  # type: ignore[method-assign]


@_moment
def _within_a_checkpoint(then: Callable[[], None]) -> None:
    """Half of the tensors are written."""
    write = state.write_tensors

    def torn(path: Path, tensors: Any) -> str:
        with path.open("wb") as file:
            for tensor in list(tensors.values())[: len(tensors) // 2]:
                file.write(bytes_of(tensor))
        then()
        return write(path, tensors)

    state.write_tensors = torn


@_moment
def _between_tensors_and_their_json(then: Callable[[], None]) -> None:
    """A checkpoint's tensors have their name; nothing says that it counts."""
    write = state._write

    def torn(path: Path, content: bytes) -> None:
        path.write_bytes(content[: len(content) // 2])
        then()
        write(path, content)

    state._write = torn


@_moment
def _within_placing(then: Callable[[], None]) -> None:
    """Half of a file for `out/` is there."""
    put = outputs.put

    def half(source: Path, place: Path, size: int) -> None:
        place.write_bytes(source.read_bytes()[: size // 2])
        then()
        place.unlink()
        put(source, place, size)

    outputs.put = half


@_moment
def _before_the_note_of_a_place(then: Callable[[], None]) -> None:
    """A folder is at its place in `out/`; nothing notes that it is ours."""
    write = outputs._write_note

    def noted(*arguments: Any) -> None:
        then()
        write(*arguments)

    outputs._write_note = noted


# -- a build ----------------------------------------------------------------------------------------------------------


class _Forked:
    """A forked nursery, as `Nursery` wants its process."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def wait(self, timeout: float | None = None) -> None:
        os.waitpid(self.pid, 0)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


def _forked_nursery() -> nursery.Nursery:
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            # As in a program of its own, nothing of the build is held open: neither its lock nor its sockets.
            descriptor = os.dup2(theirs.fileno(), 3)
            os.closerange(4, 1 << 16)
            nursery.serve(descriptor)
        finally:
            os._exit(0)
    theirs.close()
    return nursery.Nursery(_Forked(pid), ours)  # type: ignore[arg-type]


def _build(wanted: dict[str, Any], descriptors: list[int]) -> None:
    os.setsid()
    for place, descriptor in enumerate(descriptors, start=1):
        os.dup2(descriptor, place)
    os.closerange(3, 1 << 16)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", closefd=False)
    os.chdir(wanted["folder"])
    os.environ.pop("COLBUILD_STORE", None)
    executor.open_nursery = _forked_nursery
    # Every word about progress is written down, for the tests to read.
    record.PROGRESS_EVERY = 0.0  # type: ignore[misc]
    if wanted["limit"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (wanted["limit"], resource.RLIM_INFINITY))
    if wanted["moment"] is not None:
        build = os.getpid()

        def die() -> None:
            os.kill(build, signal.SIGKILL)
            time.sleep(60)

        def fill() -> None:
            with suppress(OSError), Path(wanted["fill"]).open("ab", buffering=0) as file:
                while True:
                    file.write(bytes(1024))

        MOMENTS[wanted["moment"]](die if wanted["fill"] is None else fill)
    code = run_command(wanted["arguments"])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _watch(wanted: dict[str, Any], descriptors: list[int]) -> None:
    """Starts a build and says its number and how it ended, as the server itself has other builds to start."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *printed, told = descriptors
    pid = os.fork()
    if pid == 0:
        try:
            _build(wanted, printed)
        finally:
            # A mistake that nobody foresaw: its traceback is what the test shows.
            with suppress(Exception):
                sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
                sys.stderr.flush()
            os._exit(70)
    for each in printed:
        os.close(each)
    os.write(told, f"{pid}\n".encode())
    _, status = os.waitpid(pid, 0)
    os.write(told, f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def serve(descriptor: int) -> None:
    """Forks a build for each message that comes, until nobody is left to send one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # A killed process loses nothing that it has written, synced or not; only a power loss would.
    os.fsync = lambda _: None
    os.sync = lambda: None
    import_before_fork()
    with socket.socket(fileno=descriptor) as control:
        while True:
            message, descriptors, _, _ = socket.recv_fds(control, 1 << 16, 3)
            if not message:
                return
            if os.fork() == 0:
                _watch(json.loads(message), descriptors)
            for each in descriptors:
                os.close(each)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
