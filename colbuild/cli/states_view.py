"""How a step's state is shown, the same in every command."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from colbuild.plan.states import State

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
