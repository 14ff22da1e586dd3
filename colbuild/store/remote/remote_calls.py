"""Calls to a remote: with a timeout, with retries, and with messages without secrets."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import Final, TypeVar
from urllib.parse import quote

from colbuild.errors import BuildError

T = TypeVar("T")

_FINAL: Final = (
    PermissionError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
    NotImplementedError,
    ValueError,
)
_FINAL_NUMBERS: Final = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENOSYS}
)
_FINAL_NAMES: Final = frozenset({"NoCredentialsError", "PartialCredentialsError", "EndpointConnectionError"})
"""Of botocore, which need not be installed. It has tried to connect many times before it says that it cannot."""


class RemoteError(BuildError):
    """A remote cannot be used: it does not answer, refuses, or stopped in the middle."""


class RejectedError(RemoteError):
    """A remote answered with something that is not what was asked for; nothing of it was kept."""


class MissingError(RemoteError):
    """A remote does not have a file."""


@dataclass(frozen=True)
class Calls:
    """The calls to one remote.

    Attributes:
        name: Its URL without what is secret in it.
        timeout: Seconds after which an operation that moves at most a block counts as hung.
        pauses: Seconds before each further attempt, where trouble may pass.
        secrets: Parts of the URL that no message may hold.
    """

    name: str
    timeout: float
    pauses: tuple[float, ...]
    secrets: tuple[str, ...] = field(repr=False, default=())

    def attempt(self, what: str, start: Callable[[], Future[T]], started: Future[T] | None = None) -> T:
        """An operation's result, tried again where trouble may pass; `started` is its first attempt, if it began already.

        Raises what `once` raises.
        """
        waiting = iter([started] if started is not None else [])
        return self.again(lambda: self.once(what, lambda: next(waiting, None) or start()))

    def again(self, run: Callable[[], T]) -> T:
        """Returns the result of `run`, with retries after transient errors. Raises the last attempt's error."""
        for pause in self.pauses:
            try:
                return run()
            except RemoteError as error:
                if not may_pass(error.__cause__):
                    raise
                time.sleep(pause)
        return run()

    def once(self, what: str, start: Callable[[], Future[T]]) -> T:
        """An operation's result, from one attempt.

        Args:
            what: What it does, for the message: "read tree.json".
            start: Begins it.

        Raises:
            MissingError: A file is not there.
            RemoteError: It failed, with the reason as its cause, or nothing came in time, without one.
        """
        future = start()
        try:
            wait([future], self.timeout)
        except BaseException:
            future.cancel()
            raise
        if not future.done():
            future.cancel()
            raise RemoteError(f"{self.name}: cannot {what}: no data arrived for {self.timeout:g} seconds")
        error = future.exception()
        if error is None:
            return future.result()
        if isinstance(error, FileNotFoundError):
            raise MissingError(f"{self.name}: cannot {what}: it does not exist") from error
        raise RemoteError(f"{self.name}: cannot {what}: {told(error, self.secrets)}") from error


def in_thread(call: Callable[[], T]) -> Future[T]:
    """Runs a call in a thread that nobody waits for at the end of the process: it may hang for ever."""
    future: Future[T] = Future()
    # It cannot be cancelled from now on; whoever gave it up does not hear how it ended.
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001  (raised by whoever waits for the result)
            future.set_exception(error)

    threading.Thread(target=run, daemon=True, name="colbuild-remote").start()
    return future


def shown(url: str) -> tuple[str, tuple[str, ...]]:
    """A URL as it may be printed, and the parts of it that may not be.

    A key may hold a slash, so everything up to the last @ is left out, even where that hides a bit of a path.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    secrets: list[str] = []
    login, at, place = rest.rpartition("@")
    if at:
        secrets += [login, *login.split(":", 1)]
    place, mark, query = place.partition("?")
    if mark:
        secrets.append(query)
    cleaned = f"{scheme}{separator}{'***@' if at else ''}{place}{'?***' if mark else ''}"
    spelled = {spelling for secret in secrets for spelling in (secret, quote(secret), quote(secret, safe="")) if secret}
    return printable(cleaned), tuple(sorted(spelled, key=len, reverse=True))


def may_pass(error: BaseException | None) -> bool:
    """Whether trouble may be over in a moment; None is a hung operation, whose file system has tried for long enough."""
    if error is None or isinstance(error, (*_FINAL, FileNotFoundError)):
        return False
    if isinstance(error, OSError) and error.errno in _FINAL_NUMBERS:
        return False
    return type(error).__name__ not in _FINAL_NAMES


def told(error: BaseException, secrets: tuple[str, ...]) -> str:
    """An error in a line for the user. A remote's own words may be in it, so it is cleaned and cut."""
    text = str(error).strip()
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror.lower() + (f": {error.filename}" if error.filename else "")
    for secret in secrets:
        text = text.replace(secret, "***")
    first = printable(text.splitlines()[0]) if text else ""
    return first[:200] or type(error).__name__


def printable(text: str) -> str:
    """A text that moves no cursor and changes no colour where it is printed."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
