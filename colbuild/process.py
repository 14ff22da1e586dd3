"""Python processes of colbuild: none imports from the working folder, and none outlives its parent."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Final

_PROGRAM: Final = (
    "import sys; count = int(sys.argv[3]); given, sys.path[:] = sys.argv[4 : 4 + count], sys.argv[4 + count :]; "
    "from colbuild.process import call; call(sys.argv[1], int(sys.argv[2]), given)"
)
_PDEATHSIG: Final = 1  # PR_SET_PDEATHSIG of prctl(2)
_LOOK_EVERY: Final = 0.5
"""Seconds between two looks whether the parent is still there, where the system does not tell."""

_UNHEARD: Final = tuple(getattr(signal, name) for name in ("SIGINT", "SIGHUP") if hasattr(signal, name))
"""Signals that a terminal sends to every process in it; the process that the user started decides about the others."""


def python_command(target: str, arguments: Sequence[str] = ()) -> list[str]:
    """The command that calls a function in a Python process of its own, which ends with this one.

    The process finds modules where this one does. `-P` keeps the working folder out: a `json.py` in a project or a package
    would run otherwise. An entry that the user's own PYTHONPATH puts there stays, also an empty one.

    Args:
        target: `module:function`.
        arguments: What the function is called with.
    """
    counted = [str(len(arguments)), *arguments]
    return [sys.executable, "-P", "-c", _PROGRAM, target, str(os.getpid()), *counted, *sys.path]


def call(target: str, parent: int, arguments: Sequence[str]) -> None:
    """Calls a function, in the process that `python_command` starts."""
    for number in _UNHEARD:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _UNHEARD)
    end_with(parent)
    # Python processes that libraries start do not import from the working folder either.
    os.environ["PYTHONSAFEPATH"] = "1"
    module, _, name = target.partition(":")
    getattr(import_module(module), name)(*arguments)


def end_with(parent: int) -> None:
    """From now on this process is killed when its parent ends, however it ends.

    On Linux it is the end of the parent's thread that started it which counts.

    Args:
        parent: The parent's number; it may have ended already.
    """
    if not _killed_by_the_system():
        threading.Thread(target=_look, args=(parent,), daemon=True).start()
    if os.getppid() != parent:
        os._exit(1)


@contextmanager
def unheard_by_children() -> Iterator[None]:
    """A process that is started inside hears none of a terminal's signals from its first moment on; see `call`.

    They are blocked, so that none that arrives here meanwhile is lost.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _UNHEARD)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _killed_by_the_system() -> bool:
    if not sys.platform.startswith("linux"):
        return False
    import ctypes

    try:
        return bool(ctypes.CDLL(None).prctl(_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) == 0)
    except (AttributeError, OSError):
        return False


def _look(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_EVERY)
    os._exit(1)
