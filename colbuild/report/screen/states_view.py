"""Signs, words and styles of a step's state, the same in every command."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from colbuild.plan.changes.states import State
from colbuild.plan.lock.lock import LockState

STYLES: Final[Mapping[State, str]] = {
    State.CACHED: "dim",
    State.NEW: "green",
    State.CHANGED: "yellow",
    State.CONDITIONAL: "cyan",
}
"""A state's colour."""

WORDS: Final[Mapping[State, str]] = {
    state: state.name.lower() for state in (State.CHANGED, State.NEW, State.CONDITIONAL, State.CACHED)
}
"""A state in one word, in the order of a sum."""


def lock_line(state: LockState) -> str:
    """Returns the state of a lock, as plan, build and status print it."""
    return f"lock: {state.line}"
