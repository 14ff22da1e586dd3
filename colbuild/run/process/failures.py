"""Errors inside a step, as messages for the user, without a traceback."""

from __future__ import annotations

import errno
import re
from pathlib import Path

from colbuild.errors import BuildError, ColbuildError, SourceUnavailableError, ran_out_of_memory
from colbuild.store.durable_files import storage_error
from colbuild.units import format_bytes

_OS_ERROR = re.compile(r"\(os error (\d+)\)")
_OF_A_GPU = ("cuda", "cublas", "cudnn", "mps")
_ASKED_FOR = re.compile(r"tried to allocate ([0-9.]+) ([KMG]iB|bytes)", re.IGNORECASE)
_LOG_TAIL = 8
_TAIL_BYTES = 1 << 14


class UnexpectedError(BuildError):
    """An error that nobody foresaw; its step's log tells more than its message."""


class OutOfMemoryError(BuildError):
    """A step was refused memory; later there may be more."""


def explain(error: Exception, output: Path, log: Path, *, trains: bool = False) -> ColbuildError:
    """The error to show for a step that failed.

    Args:
        error: What was raised.
        output: Where the step was writing.
        log: Where the step's process writes the traceback of what nobody expected.
        trains: Whether the step follows a recipe.
    """
    if isinstance(error, ColbuildError):
        return error
    disk = _disk_error(error)
    if disk is not None:
        return storage_error(disk, output)
    if ran_out_of_memory(error):
        return _out_of_memory(str(error), trains=trains)
    first = str(error).strip().splitlines()[0] if str(error).strip() else "no message"
    return UnexpectedError(
        f"an unexpected {type(error).__name__}: {first}",
        hint=f"report this bug of colbuild or a library; the details are in {log}",
    )


def _out_of_memory(text: str, *, trains: bool) -> OutOfMemoryError:
    """What to say of a library's error. A training has by then tried with less at once, as far as its recipe lets it."""
    where = "the GPU has" if any(sign in text.lower() for sign in _OF_A_GPU) else "there is"
    asked = _ASKED_FOR.search(text)
    size = "" if asked is None else f" for another {_size(asked[1], asked[2])}"
    ways = "close other programs"
    if trains:
        ways = f"in the recipe, set gradient_checkpointing: always, lower micro_batch or shorten sequence; or {ways}"
    return OutOfMemoryError(f"{where} not enough memory{size}", hint=f"{ways}; finished steps are kept")


def _size(number: str, unit: str) -> str:
    return format_bytes(int(number)) if unit == "bytes" and number.isdecimal() else f"{number} {unit}"


def is_transient(error: ColbuildError) -> bool:
    """Returns whether the same step might succeed if it is run again. What a check refused will be refused again."""
    return isinstance(error, UnexpectedError | OutOfMemoryError | SourceUnavailableError)


def crash(code: int | None, log: Path) -> str:
    """Returns the message for a process that ended without a result.

    Args:
        code: Its exit code, or a signal's number below zero; None if nobody knows.
        log: Its log.
    """
    if code == -9:
        return "its process was killed, probably because memory ran out"
    if code is not None and code < 0:
        return f"its process was ended by signal {-code}; its log is {log}"
    how = "" if code is None else f" (exit code {code})"
    return f"its process ended without a result{how}; its log is {log}"


def last_lines(log: Path) -> str:
    """The last lines of a step's log, for an error's message; empty if there are none."""
    if not log.is_file():
        return ""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            lines = file.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    told = [line for line in lines if line.strip() and not line.startswith("-- ")]
    return "\n".join(f"  | {line}" for line in told[-_LOG_TAIL:])


def _disk_error(error: Exception) -> OSError | None:
    """The operating system's error behind an exception; libraries written in Rust only leave its number in their text."""
    if isinstance(error, OSError):
        if error.errno is None and "requested and" in str(error):
            # numpy's tofile says only how much it wrote.
            return OSError(errno.ENOSPC, "no space left on device")
        return error if error.errno is not None else None
    found = _OS_ERROR.search(str(error))
    if found is None:
        return None
    number = int(found.group(1))
    return OSError(number, str(error))
