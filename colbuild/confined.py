"""Runs work on files from outside in a separate process, with limits of time and memory.

::

    confined(task, bounds) ──fork or start──> child: imports, says that it is ready, takes its bounds, works
             ^                                  │
             └──────── values as JSON ──────────┘    a crash, a hang or a bomb ends the child alone

Libraries in C++ and Rust read graphs and tokenizers. A damaged or hostile file makes them abort, loop or take all memory, and
none of these is an exception. What the child sends back is JSON, which cannot harm the process that reads it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import importlib
import json
import os
import resource
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from colbuild.documents import MalformedError, parse_json
from colbuild.errors import BuildError, ColbuildError, ran_out_of_memory, short_text
from colbuild.process import end_with, python_command, unheard_by_children
from colbuild.units import format_bytes, format_duration

_TO_START: Final = 300.0
"""Seconds until a child must have imported its libraries: only a machine that hardly works takes longer."""
_BLOCK: Final = 1 << 16
_STACK: Final = 16 << 20
"""Bytes that a thread's stack may have; they count as data before they are used."""
_TASKS: Final = Path("/proc/self/task")
_SIZES: Final = Path("/proc/self/statm")


@dataclass(frozen=True)
class Task:
    """The task of a child process.

    Attributes:
        module: It is imported in the child before the bounds begin.
        function: Of that module: called with `beat` and `given`, yields values of JSON. It calls `beat()` where work goes on
            that yields no value yet.
        given: Its arguments by name, of JSON too.
        about: The file that it works on, for messages: "the package out/phone".
        hint: What to do where it fails.
    """

    module: str
    function: str
    given: dict[str, Any]
    about: str
    hint: str | None = None


@dataclass(frozen=True)
class Bounds:
    """The limits of a child process: time and memory.

    Attributes:
        seconds: Until the next value or beat, while it is waited for.
        memory: Bytes beyond those of the child once its libraries are imported. macOS has no such limit.
    """

    seconds: float
    memory: int


def confined(task: Task, bounds: Bounds, *, forked: bool = True) -> Iterator[Any]:
    """The values that a task's function yields, as they come.

    Args:
        task: The work.
        bounds: Its bounds.
        forked: Whether the child may be a fork of this process, where that is safe: it then imports nothing again.

    Raises:
        BuildError: The function raised it, or anything else; or the child crashed, took too long or needed too much memory.
    """
    read, write = os.pipe()
    try:
        child = _forked(task, bounds, read, write) if forked and _has_one_thread() else _started(task, bounds, write)
    finally:
        os.close(write)
    try:
        yield from _values(task, bounds, _Lines(read), child)
    finally:
        os.close(read)
        child.kill()
        child.wait()


# -- in the process that asks -----------------------------------------------------------------------------------------


def _has_one_thread() -> bool:
    """Returns whether a fork is safe: locks of other threads would stay locked in it."""
    try:
        return len(list(_TASKS.iterdir())) == 1
    except OSError:
        return False


class _Fork:
    """A forked process, as far as `subprocess.Popen` is used here."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._code: int | None = None

    def kill(self) -> None:
        """Ends it, if it has not ended."""
        if self._code is None:
            os.kill(self._pid, signal.SIGKILL)

    def wait(self) -> int:
        """Waits for the child; returns its exit code, or minus the number of the signal that ended it."""
        if self._code is None:
            self._code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        return self._code


def _forked(task: Task, bounds: Bounds, read: int, write: int) -> _Fork:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return _Fork(pid)
    # The child never returns from here.
    with contextlib.suppress(BaseException):
        os.close(read)
        _work(task, bounds, write, parent)
    os._exit(1)


def _started(task: Task, bounds: Bounds, write: int) -> subprocess.Popen[bytes]:
    told = json.dumps({"task": asdict(task), "bounds": asdict(bounds), "parent": os.getpid()})
    command = python_command("colbuild.confined:serve", [str(write), told])
    with unheard_by_children():
        return subprocess.Popen(command, pass_fds=[write], stdin=subprocess.DEVNULL)  # noqa: S603 (our own code)


class _Lines:
    """Lines from a pipe."""

    def __init__(self, read: int) -> None:
        self._read, self._rest = read, b""

    def next(self, seconds: float) -> bytes | None:
        """The next line, None at the end. Raises TimeoutError."""
        ends = time.monotonic() + seconds
        while b"\n" not in self._rest:
            if not select.select([self._read], [], [], max(0.0, ends - time.monotonic()))[0]:
                raise TimeoutError
            block = os.read(self._read, _BLOCK)
            if not block:
                return None
            self._rest += block
        line, _, self._rest = self._rest.partition(b"\n")
        return line


def _values(task: Task, bounds: Bounds, lines: _Lines, child: _Fork | subprocess.Popen[bytes]) -> Iterator[Any]:
    seconds = _TO_START
    while True:
        try:
            line = lines.next(seconds)
        except TimeoutError:
            raise BuildError(
                f"{task.about} takes longer than {format_duration(seconds)}, the limit", hint=task.hint
            ) from None
        if line is None:
            raise _crash(task, bounds, child.wait())
        kind, value = _said(task, line)
        if kind == "end":
            return
        if kind == "error":
            raise BuildError(str(value["message"]), hint=value["hint"])
        if kind == "value":
            yield value
        seconds = bounds.seconds


def _said(task: Task, line: bytes) -> tuple[str, Any]:
    try:
        kind, value = parse_json(line)
    except (MalformedError, TypeError, ValueError):
        raise BuildError(f"{task.about} crashes the process that reads it", hint=task.hint) from None
    return str(kind), value


def _crash(task: Task, bounds: Bounds, code: int) -> BuildError:
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return BuildError(
        f"{task.about} ends the process that reads it ({how}): it is damaged, or needs more than "
        f"{format_bytes(bounds.memory)} of memory, the limit",
        hint=task.hint,
    )


# -- in the child -----------------------------------------------------------------------------------------------------


def serve(write: str, told: str) -> None:
    """Runs in a started child; never returns."""
    try:
        orders = json.loads(told)
        _work(Task(**orders["task"]), Bounds(**orders["bounds"]), int(write), orders["parent"])
    finally:
        os._exit(1)


def _work(task: Task, bounds: Bounds, write: int, parent: int) -> None:
    write = fcntl.fcntl(write, fcntl.F_DUPFD_CLOEXEC, 3)
    _leave_terminal()
    end_with(parent)

    def say(kind: str, value: Any) -> None:
        content = json.dumps([kind, value]).encode("ascii") + b"\n"
        while content:
            content = content[os.write(write, content) :]

    try:
        function = getattr(importlib.import_module(task.module), task.function)
        say("ready", None)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        _allow(bounds.memory)
        for value in function(beat=partial(say, "beat", None), **task.given):
            say("value", value)
        say("end", None)
    except ColbuildError as error:
        say("error", {"message": error.message, "hint": error.hint})
    except BaseException as error:  # noqa: BLE001 - libraries raise whatever they like, and panics of Rust are no Exception
        say("error", {"message": _failure(task, bounds, error), "hint": task.hint})
    os._exit(0)


def _allow(memory: int) -> None:
    """Sets the bound of memory to so many bytes beyond what the process has now."""
    data = int(_SIZES.read_text("ascii").split()[5]) * resource.getpagesize() if _SIZES.exists() else 0
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    most = data + memory + _STACK * (os.cpu_count() or 1)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


def _failure(task: Task, bounds: Bounds, error: BaseException) -> str:
    if ran_out_of_memory(error):
        return f"{task.about} needs more than {format_bytes(bounds.memory)} of memory, the limit"
    return f"{task.about} cannot be used: {type(error).__name__}: {short_text(error)}"


def _leave_terminal() -> None:
    """Says nothing and hears nothing of the terminal: what Ctrl-C means is for the process that asks to decide."""
    silent = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silent, stream)
    # It would write where the terminal was before.
    faulthandler.disable()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
