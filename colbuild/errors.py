"""The errors that users see, each with its exit code; `docs/commands.md` lists the codes."""

from __future__ import annotations

from typing import ClassVar, Final

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_WORK_PENDING = 2
EXIT_SPEC_ERROR = 3
EXIT_STALE_PLAN = 4
EXIT_SOURCE_UNAVAILABLE = 5


class ColbuildError(Exception):
    """Something a user can act on; shown without a traceback.

    Args:
        message: What is wrong and where, in one or a few lines.
        hint: The next thing to try, if there is one.
        placed: Whether the message begins with a place in the spec.
        key: For a mistake about a source, the key beside it that the mistake is about, such as `text`; None for the source.
    """

    exit_code: ClassVar[int] = EXIT_FAILED

    def __init__(self, message: str, *, hint: str | None = None, placed: bool = False, key: str | None = None) -> None:
        message = _unended(message)
        super().__init__(message)
        self.message = message
        self.hint = None if hint is None else _unended(hint)
        self.placed = placed
        self.key = key

    def __str__(self) -> str:
        """The message, and the hint in a line of its own, for tracebacks and notebooks."""
        return self.message if self.hint is None else f"{self.message}\nhint: {self.hint}"


def _unended(text: str) -> str:
    """A text without the full stop at its end: what is told after it begins with a semicolon, or in a line of its own."""
    text = text.rstrip()
    return text[:-1] if text.endswith(".") and not text.endswith("..") else text


class BuildError(ColbuildError):
    """A step failed, or what it was given cannot be used."""


class SourceError(BuildError):
    """A source is there, and its content is not what the spec takes it for: no model, another format, damaged."""

    exit_code: ClassVar[int] = EXIT_SPEC_ERROR


class StoppedError(ColbuildError):
    """Somebody stopped the work at a boundary; what was finished, and what a step can go on from, is kept."""


class SpecError(ColbuildError):
    """A mistake in the user's files; the message already holds every problem with its place."""

    exit_code: ClassVar[int] = EXIT_SPEC_ERROR


class StalePlanError(ColbuildError):
    """A saved plan no longer says what a build would do; the message holds everything that changed."""

    exit_code: ClassVar[int] = EXIT_STALE_PLAN


class SourceUnavailableError(ColbuildError):
    """A source cannot be reached, does not exist, or is not what was pinned."""

    exit_code: ClassVar[int] = EXIT_SOURCE_UNAVAILABLE


_NO_MEMORY: Final = (
    "can't allocate memory",  # torch's allocator of a CPU, as a RuntimeError
    "not enough memory",
    "out of memory",  # torch.OutOfMemoryError, and CUDA's own
    "alloc_failed",  # CUDA's libraries
    "std::bad_alloc",
    "bad allocation",
    "failed to allocate memory",  # onnxruntime
)


def ran_out_of_memory(error: BaseException) -> bool:
    """Returns whether a library, or Python itself, raised this because it could not get memory, on any device."""
    return isinstance(error, MemoryError) or any(sign in _text(error).lower() for sign in _NO_MEMORY)


def system_reason(error: OSError) -> str:
    """Returns the system's reason for refusing a file, as part of a message."""
    return (error.strerror or str(error)).lower()


_LONGEST: Final = 300
"""Characters of a library's error that are told."""


def short_text(error: BaseException) -> str:
    """The first line of what a library says of an error about a file from outside, which may say anything of any length."""
    if ran_out_of_memory(error):
        return "it needs more memory than its limit"
    return _text(error).strip().split("\n", 1)[0][:_LONGEST] or type(error).__name__


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except ValueError:  # a number of thousands of digits has no text
        return ""
