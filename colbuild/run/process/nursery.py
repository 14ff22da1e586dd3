"""The process that imports torch once and forks the process of every step.

::

    build ──start──> nursery ──fork──> step      each step's memory returns when it ends,
      ^                                  │       and a crash affects no other step
      └────────── events, outcome ───────┘

Not `multiprocessing`: its forkserver runs the user's main script again in each process, and a build must work from any
script or notebook. Of it only the connections are used. The nursery has one thread and computes nothing, so forking it is safe;
on macOS, where torch's libraries do not survive a fork, each step imports them itself.
"""

from __future__ import annotations

import gc
import os
import pickle
import select
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing.connection import Connection, Pipe
from typing import Any, Final

from colbuild.plan.steps.operations import OPERATIONS
from colbuild.process import python_command, unheard_by_children
from colbuild.run.process.environment import prepare_process
from colbuild.run.process.job import Job
from colbuild.run.process.spinning import let_threads_spin

_SERVE = "colbuild.run.process.nursery:serve"
Work = Callable[[Job, Connection, int], None]
"""What a step's process does: see `colbuild.run.process.worker.work`."""

_LIBRARIES: Final = ("mobius",)
"""Libraries that steps import when they run, and that take long."""

_LENGTH = 8
_STOP_GRACE = 10.0


@dataclass(eq=False)
class Child:
    """The process of one step, as the build sees it.

    Attributes:
        number: Its number in its nursery.
        connection: Gives its events and its outcome; at its end (EOFError) the process is gone.
    """

    number: int
    connection: Connection


@dataclass(frozen=True)
class _Start:
    number: int
    job: Job
    environment: dict[str, str]


@dataclass(frozen=True)
class _Signal:
    number: int
    signal: int


@dataclass(eq=False)
class Nursery:
    """Starts the processes of steps; as a context, it leaves none behind."""

    _process: subprocess.Popen[bytes]
    _control: socket.socket
    _started: int = field(default=0, init=False)
    _ended: dict[int, int] = field(default_factory=dict, init=False)

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *_: object) -> None:
        # At the end of its control the nursery kills what still runs, and ends.
        self._control.close()
        try:
            self._process.wait(_STOP_GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def end_now(self) -> None:
        """Kills the nursery, also while it still imports, and with it every process that it has started."""
        self._process.kill()

    def start(self, job: Job) -> Child:
        """Starts a process for a job.

        Raises:
            OSError: The nursery is gone.
        """
        self._hear_of_ended()
        ours, theirs = Pipe(duplex=False)
        self._started += 1
        with theirs:
            _send(self._control, _Start(self._started, job, dict(os.environ)), [theirs.fileno()])
        return Child(self._started, ours)

    def signal(self, child: Child, number: int) -> None:
        """Sends a signal to a child, if it is still there."""
        with suppress(OSError):
            _send(self._control, _Signal(child.number, number))

    def ended_by(self, child: Child) -> int | None:
        """Returns the exit code of an ended child, or minus a signal's number; None if unknown."""
        self._control.settimeout(_STOP_GRACE)
        with suppress(OSError, EOFError):
            while child.number not in self._ended:
                self._hear()
        return self._ended.pop(child.number, None)

    def _hear_of_ended(self) -> None:
        """Takes in what the nursery has said so far: with nobody listening it would wait after some hundred children."""
        with suppress(OSError, EOFError):
            while select.select([self._control], [], [], 0)[0]:
                self._hear()

    def _hear(self) -> None:
        number, code = _receive(self._control)[0]
        self._ended[number] = code


def open_nursery() -> Nursery:
    """Starts a nursery; it is ready for jobs at once, and works them off as soon as it has imported what they need."""
    ours, theirs = socket.socketpair()
    with theirs, unheard_by_children():
        process = subprocess.Popen(  # noqa: S603 (our own interpreter and code)
            python_command(_SERVE, [str(theirs.fileno())]), pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL
        )
    return Nursery(process, ours)


def _send(control: socket.socket, message: object, descriptors: list[int] | None = None) -> None:
    content = pickle.dumps(message)
    # The descriptors travel with the first byte, and the rest follows.
    socket.send_fds(control, [len(content).to_bytes(_LENGTH, "big")], descriptors or [])
    control.sendall(content)


def _receive(control: socket.socket) -> tuple[Any, list[int]]:
    header, descriptors, _, _ = socket.recv_fds(control, _LENGTH, 1)
    if not header:
        raise EOFError
    header += _exactly(control, _LENGTH - len(header))
    # Both ends are processes of one build, and nobody else holds the sockets.
    return pickle.loads(_exactly(control, int.from_bytes(header, "big"))), descriptors  # noqa: S301


def _exactly(control: socket.socket, size: int) -> bytes:
    parts = []
    while size:
        part = control.recv(min(size, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


# -- inside the nursery -----------------------------------------------------------------------------------------------


def serve(descriptor: int | str) -> None:
    """Forks a process for each job that comes, until the build closes its end or is gone."""
    # What ends every process of a group asks the steps to stop; they could not if the nursery ended before them. Each step's
    # process lets the signal through as soon as it knows what to do.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    let_threads_spin()
    prepare_process()
    # Not imported above: the build has no use for it.
    from colbuild.run.process.worker import work

    if sys.platform != "darwin":
        import_before_fork()
        # What was imported stays: a collection in a step's process, which would read and so copy all of it, leaves it out.
        gc.collect()
        gc.freeze()
    control = socket.socket(fileno=int(descriptor))
    woken, wake = socket.socketpair()
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    children: dict[int, int] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        try:
            while True:
                for key, _ in selector.select():
                    if key.fileobj is woken:
                        woken.recv(4096)
                        _reap(control, children)
                        continue
                    _obey(control, children, (control, woken, wake), work)
        except (EOFError, OSError):
            signal.set_wakeup_fd(-1)
            for pid in children.values():
                os.kill(pid, signal.SIGKILL)


def _obey(control: socket.socket, children: dict[int, int], sockets: tuple[socket.socket, ...], work: Work) -> None:
    message, descriptors = _receive(control)
    if isinstance(message, _Signal):
        if message.number in children:
            os.kill(children[message.number], message.signal)
        return
    assert isinstance(message, _Start)
    parent = os.getpid()
    pid = os.fork()
    if pid:
        os.close(descriptors[0])
        children[message.number] = pid
        return
    # The child never returns from here, whatever happens: it must not serve as a second nursery.
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for each in sockets:
            each.close()
        os.environ.clear()
        os.environ.update(message.environment)
        work(message.job, Connection(descriptors[0], readable=False), parent)
    finally:
        os._exit(1)


def _reap(control: socket.socket, children: dict[int, int]) -> None:
    for number, pid in list(children.items()):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            del children[number]
            _send(control, (number, os.waitstatus_to_exitcode(status)))


def import_before_fork() -> None:
    """Imports the modules that steps need, once for all processes that are forked from this one."""
    for operation in OPERATIONS.values():
        if operation.forked:
            import_module(operation.module)
    for library in _LIBRARIES:
        import_module(library)
