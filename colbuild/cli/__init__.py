"""The command line: options, and what each command calls and prints.

A command reads its arguments, calls names of `colbuild`, and hands the values to `colbuild.report`. The room may import these
two and the modules `errors`, `events`, `progress` and `units` alone; expensive imports happen inside the command that needs
them.
"""

import os


def main() -> None:
    """Runs the command line and exits with one of DESIGN's exit codes."""
    # Python would answer an interrupt with a traceback until `start` deals with it, and what that imports takes a moment.
    # Importing `signal` would, too: it imports `enum`.
    import _signal  # type: ignore[import-not-found]

    heard = _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler
    if heard:
        _signal.signal(_signal.SIGINT, _end)
    from colbuild.cli.start import main

    main(interruptible=heard)


def _end(number: int, frame: object) -> None:
    """Nothing has been done yet that would have to be brought to an end."""
    try:
        os.write(2, b"error: interrupted\n")
    finally:
        os._exit(1)


__all__ = ["main"]
