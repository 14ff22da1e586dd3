"""The lock of a family: decisions that stay the same on every machine.

::

    spec ──────────────┐
    lock ── compare ───┤── nothing differs ──> its shapes and route are used, sources are what it says
                       ├── differs ──────────> solved again; a build writes the lock, --locked refuses
                       └── --frozen ─────────> its shapes and route are used, whatever differs
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from colbuild.errors import SpecError
from colbuild.plan.changes.differ import Change, differences
from colbuild.plan.changes.shown import from_to, in_short, listed, where
from colbuild.plan.lock.lock_file import Lock, lock_error, lock_path, missing_lock, read_lock
from colbuild.plan.lock.named_sources import source_paths, source_uris
from colbuild.plan.shapes.bridge_shape import BRIDGE, tokenizer_source
from colbuild.plan.steps.operations import epochs
from colbuild.spec import LoadedFamily, Places, Problem, spec_error
from colbuild.spec.model.decides import deciding
from colbuild.spec.model.family import Family


class LockMode(Enum):
    """The use of a family's lock."""

    REFRESH = "refresh"
    """Used as far as it holds; a build writes it again where it does not."""
    LOCKED = "locked"
    """It must be up to date."""
    FROZEN = "frozen"
    """It is used as it is, even where the spec says something else by now."""


@dataclass(frozen=True)
class LockState:
    """The state of a family's lock.

    Attributes:
        path: Where it lies, or would.
        name: The same, as messages call it.
        mode: What it is taken for.
        lock: What it holds; None if there is none, or it cannot be used.
        problem: Why it cannot be used.
        differences: What is no longer as it says, each as a field; empty if there is no lock.
        pins: Whether its shapes and route are used.
    """

    path: Path
    name: str
    mode: LockMode
    lock: Lock | None = None
    problem: Problem | None = None
    differences: tuple[str, ...] = ()
    pins: bool = False

    @property
    def up_to_date(self) -> bool:
        """Whether it says all that it should."""
        return self.lock is not None and not self.differences

    @property
    def line(self) -> str:
        """Its state, in one line."""
        frozen = "frozen, " if self.mode is LockMode.FROZEN else ""
        if self.problem is not None:
            place = f"  {self.problem.place}" if self.problem.place else ""
            return f"out of date: {self.problem.message}{place}"
        if self.lock is None:
            return "none"
        if not self.differences:
            return f"{frozen}up to date"
        return f"{frozen}out of date: {in_short(self.differences)}"


def open_lock(loaded: LoadedFamily, mode: LockMode) -> LockState:
    """Reads a family's lock, and compares it with nothing yet.

    Raises:
        SpecError: It is missing or cannot be used, and `mode` demands it; or a newer colbuild wrote it.
    """
    path = lock_path(loaded.path)
    name = path.relative_to(loaded.root).as_posix()
    found = read_lock(path, name)
    state = LockState(path, name, mode)
    if isinstance(found, Lock):
        return replace(state, lock=found)
    if mode is not LockMode.REFRESH:
        raise missing_lock(name) if found is None else lock_error(found)
    return replace(state, problem=found)


def compare(state: LockState, loaded: LoadedFamily, source_digest: Callable[[str], str | None]) -> LockState:
    """Finds what is no longer as the lock says, and whether its shapes and route hold.

    Args:
        state: The lock.
        loaded: The family as its files say now.
        source_digest: URI -> digest of its content, None when that is not known without fetching it.

    Raises:
        SpecError: Something differs, and the lock must be up to date; or a source is not in one that is frozen.
    """
    if state.lock is None:
        return state
    lost = next((uri for uri in source_uris(loaded.family) if uri not in state.lock.sources), None)
    if lost is not None and state.mode is LockMode.FROZEN:
        place = loaded.places.nearest(source_paths(loaded.family)[lost])
        raise spec_error([Problem(place, f"the source {lost} is not in {state.name}", "pin it with 'colbuild lock'")])
    spec = tuple(_spec_changes(state.lock.spec, loaded))
    sources = dict(_source_changes(state.lock, loaded.family, source_digest))
    raised = (
        f"epoch of '{op}' {from_to(change)}"
        for change in differences(state.lock.epochs, epochs())
        for op in change.path
    )
    found = (*spec, *sources.values(), *raised)
    if found and state.mode is LockMode.LOCKED:
        raise _out_of_date(state.name, found)
    # Shapes follow from the spec and the AnsNet; other texts or operations leave them as they are.
    holds = not spec and loaded.family.ansnet.source not in sources
    # Anchors that colbuild places itself are no items of the spec that a shape could be pinned to.
    named = {item.name for item in (*loaded.family.anchors, *loaded.family.desnets)}
    holds = (
        holds and named == state.lock.shapes.keys() - {BRIDGE} and tokenizer_source(loaded.family.bridge) not in sources
    )
    return replace(state, differences=found, pins=holds or state.mode is LockMode.FROZEN)


# -- what differs -----------------------------------------------------------------------------------------------------


def _out_of_date(name: str, found: Sequence[str]) -> SpecError:
    hint = "update it with 'colbuild lock', or use it unchanged with --frozen"
    return SpecError(listed(f"{name} is out of date", found, 8), hint=hint)


def _spec_changes(before: Mapping[str, Any], loaded: LoadedFamily) -> Iterator[str]:
    """What the spec says differently; a line that decides many values is told once."""
    seen = set()
    for change in differences(before, deciding(loaded.family)):
        place = loaded.places.nearest(change.at) if change.after is not None else None
        what = f"{change.path[-1]} {from_to(change)}"
        if place is None or (place, what) not in seen:
            yield _described(change, loaded.places)
        seen.add((place, what))


def _described(change: Change, places: Places) -> str:
    named = ".".join(change.path)
    if change.reordered:
        return f"{named}.order {', '.join(change.before)} -> {', '.join(change.after)}{where(places, change.at)}"
    if change.after is None and isinstance(change.before, Mapping):
        return f"{named} removed"
    if change.before is None and isinstance(change.after, Mapping):
        return f"{named} added{where(places, change.at)}"
    return f"{named} {from_to(change)}{where(places, change.at)}"


def _source_changes(
    lock: Lock, family: Family, source_digest: Callable[[str], str | None]
) -> Iterator[tuple[str, str]]:
    for uri in source_uris(family):
        locked, now = lock.sources.get(uri), source_digest(uri)
        if locked is None:
            yield uri, f"{uri} is not locked"
        elif now is not None and now != locked.digest:
            yield uri, f"{uri} {locked.digest[:12]} -> {now[:12]}"
