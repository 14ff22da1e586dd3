"""The command line: typer commands and rich rendering, no logic."""

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
