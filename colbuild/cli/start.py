"""The start and the end of a command: streams, Ctrl-C at any moment, and lost output."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING

from colbuild.errors import EXIT_FAILED

if TYPE_CHECKING:
    from sys import UnraisableHookArgs


def main(*, interruptible: bool = True) -> None:
    """Runs the command line and exits with one of DESIGN's exit codes.

    Args:
        interruptible: Whether Ctrl-C is heard: shells have what runs in their background ignore it.
    """
    sys.unraisablehook = _unraisable
    try:
        if interruptible:
            signal.signal(signal.SIGINT, _interrupt)
        from colbuild.report.screen.streams import finish_streams, open_streams

        open_streams()
        from colbuild.cli.app import run_command

        code = run_command(sys.argv[1:])
        # All is done: an interrupt from here on ends the process without a word.
        if interruptible:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
    except KeyboardInterrupt:
        code = _interrupted()
    except Exception:
        # Compiled libraries raise errors of their own for an interrupt that reaches them: pydantic raises a SchemaError.
        if not interruptible or signal.getsignal(signal.SIGINT) is not signal.SIG_DFL:
            raise
        code = _interrupted()
    else:
        code = finish_streams(code)
    sys.exit(code)


def _interrupted() -> int:
    sys.stderr.write("error: interrupted\n")
    return EXIT_FAILED


def _interrupt(number: int, frame: FrameType | None) -> None:
    """The first Ctrl-C ends the command in good order; the second ends the process, whatever it is at."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    raise KeyboardInterrupt


def _unraisable(raised: UnraisableHookArgs) -> None:
    """Python would print a traceback where an interrupt comes while an object is being removed."""
    if not isinstance(raised.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(raised)
