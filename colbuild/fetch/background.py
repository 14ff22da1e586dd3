"""Runs work that cannot be interrupted: one long call of a library, a connection that does not answer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

LOOK_EVERY: Final = 0.2
"""Seconds between two looks whether the work shall be left."""


def in_background(work: Callable[[], T], look: Callable[[], None]) -> T:
    """Does some work in a thread and looks now and then.

    An error that `look` raises ends the wait and leaves the work behind. The process is about to end then, and with it the
    thread.

    Args:
        work: What to do; its result or error is this function's.
        look: Called a few times a second in the calling thread.
    """
    ended = threading.Event()
    found: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:  # noqa: BLE001  (raised again in the calling thread)
            failed.append(error)
        finally:
            ended.set()

    threading.Thread(target=run, daemon=True).start()
    while not ended.wait(LOOK_EVERY):
        look()
    if failed:
        raise failed[0]
    return found[0]
