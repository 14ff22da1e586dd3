"""Standard output and standard error of a command; a closed, full or broken stream is no traceback."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TextIO

from colbuild.errors import EXIT_FAILED, ColbuildError, system_reason
from colbuild.report.screen.printed import shown

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_FLAGS: Final = (os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)
"""How a closed standard stream is opened: writing to the output fails as before; the errors go nowhere."""


class OutputLostError(ColbuildError):
    """A command's output cannot be written."""

    def __init__(self, error: OSError) -> None:
        self.silent = error.errno == errno.EPIPE
        told = "it is closed" if error.errno == errno.EBADF else system_reason(error)
        super().__init__(f"standard output cannot be written: {told}")


class _Raw(io.FileIO):
    """A stream's file. The first failure to write is told, by an exception unless the output is optional; then all is dropped.

    Attributes:
        optional: Whether the command is worth finishing without its output.
        lost: The first failure.
    """

    def __init__(self, descriptor: int, *, optional: bool) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.optional = optional
        self.lost: OSError | None = None

    def write(self, content: ReadableBuffer, /) -> int:
        """Writes; what was lost counts as written."""
        size = memoryview(content).nbytes
        if self.lost is not None:
            return size
        try:
            return super().write(content)
        except OSError as error:
            self.lost = error
            if self.optional:
                return size
            raise OutputLostError(error) from None


class Messages(io.TextIOWrapper):
    """Standard error: whatever a library prints there has its control characters shown, not obeyed."""

    def write(self, text: str, /) -> int:
        """Writes a text, escaped."""
        super().write(shown(text))
        return len(text)

    @property
    def unescaped(self) -> TextIO:
        """The same stream for a console, whose own sequences command the terminal."""
        return _Unescaped(self.buffer, self.encoding)


class _Unescaped(io.TextIOWrapper):
    def __init__(self, buffer: Any, encoding: str) -> None:
        super().__init__(buffer, encoding, "replace", write_through=True)

    def __del__(self) -> None:
        # The buffer is that of standard error, which stays open.
        with suppress(ValueError):
            self.detach()


def open_streams() -> None:
    """Puts streams in the place of Python's own, for the whole process."""
    for descriptor, flags in enumerate(_FLAGS):
        try:
            os.fstat(descriptor)
        except OSError:
            # The next file to be opened would take its number, and what is printed would go there.
            opened = os.open(os.devnull, flags)
            os.dup2(opened, descriptor)
            if opened != descriptor:
                os.close(opened)
    sys.stdout = _stream(1, sys.stdout, io.TextIOWrapper, optional=False)
    sys.stderr = _stream(2, sys.stderr, Messages, optional=True)


def output_is_optional() -> None:
    """From now on the command goes on where its output cannot be written."""
    raw = _raw(sys.stdout)
    if raw is not None:
        raw.optional = True


def finish_streams(code: int) -> int:
    """Writes what is left in buffers; returns the exit code, which tells of lost output unless that is optional."""
    raw = _raw(sys.stdout)
    with suppress(OutputLostError):
        sys.stdout.flush()
    if raw is not None and raw.lost is not None:
        lost = OutputLostError(raw.lost)
        if not lost.silent:
            what = "warning" if raw.optional else "error"
            sys.stderr.write(f"{what}: {lost.message}\n")
        code = code if raw.optional else code or EXIT_FAILED
    sys.stderr.flush()
    return code


def _stream(descriptor: int, before: Any, kind: type[io.TextIOWrapper], *, optional: bool) -> io.TextIOWrapper:
    raw = _Raw(descriptor, optional=optional)
    # A terminal that knows ASCII only shows "?" for a name's letters instead of an error.
    return kind(
        io.BufferedWriter(raw),
        encoding=getattr(before, "encoding", None) or "utf-8",
        errors="replace",
        line_buffering=raw.isatty() or descriptor == 2,
        write_through=getattr(before, "write_through", False),
    )


def _raw(stream: Any) -> _Raw | None:
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return raw if isinstance(raw, _Raw) else None
