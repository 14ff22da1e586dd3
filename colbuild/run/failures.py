"""What went wrong inside a step, in words for the user: never a traceback on the screen."""

from __future__ import annotations

import errno
import re
import traceback
from pathlib import Path

from colbuild.errors import BuildError, ColbuildError
from colbuild.store.files import storage_error

_OS_ERROR = re.compile(r"\(os error (\d+)\)")
_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "std::bad_alloc", "bad allocation")


def explain(error: Exception, step: str, output: Path, logs: Path) -> ColbuildError:
    """The error to show for a step that failed.

    Args:
        error: What was raised.
        step: The step's id.
        output: Where the step was writing.
        logs: The folder for the traceback of what nobody expected.
    """
    if isinstance(error, ColbuildError):
        return error
    disk = _disk_error(error)
    if disk is not None:
        return storage_error(disk, output)
    if isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in _NO_MEMORY):
        return BuildError(
            "there is not enough memory",
            hint="lower batch or sequence in the recipe, or close other programs; what was finished is kept",
        )
    log = logs / (re.sub(r"[^A-Za-z0-9._-]+", "-", step) + ".log")
    log.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    first = str(error).strip().splitlines()[0] if str(error).strip() else "no message"
    return BuildError(
        f"an unexpected {type(error).__name__}: {first}",
        hint=f"this is a mistake in colbuild or in a library; the details are in {log}",
    )


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
