"""The lock of a family: what was decided once, so that it stays decided on every machine.

::

    spec ──────────────┐
    lock ── compare ───┤── nothing differs ──> its shapes and route are used, sources are what it says
                       ├── differs ──────────> solved anew; a build writes the lock again, --locked refuses
                       └── --frozen ─────────> its shapes and route are used, whatever differs
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from colbuild.arch import Shape, Structure
from colbuild.errors import SpecError
from colbuild.plan.changes.shown import shown
from colbuild.plan.lock.lock_file import Link, Lock, LockedSource, lock_error, lock_path, missing_lock, read_lock
from colbuild.plan.shapes.bridge_shape import BRIDGE, tokenizer_source
from colbuild.plan.shapes.chain import Chain, resolve_chain
from colbuild.plan.shapes.placed_anchors import pinned_anchors
from colbuild.plan.steps.operations import EPOCHS
from colbuild.spec import LoadedFamily, Places, Problem, spec_error
from colbuild.spec.model.decides import deciding
from colbuild.spec.model.family import Family, ShapeRequest, Sized
from colbuild.spec.text.places import Path as ValuePath


class LockMode(Enum):
    """What a family's lock is taken for."""

    REFRESH = "refresh"
    """Used as far as it holds; a build writes it again where it does not."""
    LOCKED = "locked"
    """It must be up to date."""
    FROZEN = "frozen"
    """It is used as it is, even where the spec says something else by now."""


@dataclass(frozen=True)
class LockState:
    """How a family's lock stands.

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
        """How it stands, in one line."""
        frozen = "frozen, " if self.mode is LockMode.FROZEN else ""
        if self.problem is not None:
            place = f"  {self.problem.place}" if self.problem.place else ""
            return f"out of date: {self.problem.message}{place}"
        if self.lock is None:
            return "none"
        if not self.differences:
            return f"{frozen}up to date"
        more = f" and {len(self.differences) - 2} more" if len(self.differences) > 2 else ""
        return f"{frozen}out of date: {'; '.join(self.differences[:2])}{more}"


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
        raise spec_error([Problem(place, f"the source {lost} is not in {state.name}", "'colbuild lock' pins it")])
    spec = tuple(_spec_changes(state.lock.spec, loaded))
    sources = dict(_source_changes(state.lock, loaded.family, source_digest))
    epochs = tuple(
        f"epoch of '{op}' {shown(state.lock.epochs.get(op))} -> {shown(EPOCHS.get(op))}"
        for op in sorted(state.lock.epochs.keys() | EPOCHS.keys())
        if state.lock.epochs.get(op) != EPOCHS.get(op)
    )
    differences = (*spec, *sources.values(), *epochs)
    if differences and state.mode is LockMode.LOCKED:
        raise _out_of_date(state.name, differences)
    # Shapes follow from the spec and the AnsNet; other texts or operations leave them as they are.
    holds = not spec and loaded.family.ansnet.source not in sources
    # Anchors that colbuild places itself are no items of the spec that a shape could be pinned to.
    named = {item.name for item in (*loaded.family.anchors, *loaded.family.desnets)}
    holds = (
        holds and named == state.lock.shapes.keys() - {BRIDGE} and tokenizer_source(loaded.family.bridge) not in sources
    )
    return replace(state, differences=differences, pins=holds or state.mode is LockMode.FROZEN)


def source_uris(family: Family) -> tuple[str, ...]:
    """Every source of a family, once each."""
    return tuple(source_paths(family))


def source_paths(family: Family) -> dict[str, ValuePath]:
    """Every source of a family -> the path of the value that names it, the first one where several do."""
    data = family.data
    starts = (
        (anchor.init.checkpoint, ("anchors", index, "init", "checkpoint"))
        for index, anchor in enumerate(family.anchors)
        if anchor.init is not None
    )
    every: tuple[tuple[str | None, ValuePath], ...] = (
        (family.ansnet.source, ("ansnet", "source")),
        (data.train.content, ("data", "train", "source")),
        (data.eval.content, ("data", "eval", "source")),
        (tokenizer_source(family.bridge), ("bridge", "tokenizer")),
        *starts,
    )
    paths: dict[str, ValuePath] = {}
    for uri, path in every:
        if uri is not None:
            paths.setdefault(uri, path)
    return paths


def lock_of(family: Family, config: Mapping[str, Any], chain: Chain, sources: Mapping[str, LockedSource]) -> Lock:
    """The lock of a family as it stands.

    Args:
        family: The resolved spec.
        config: The AnsNet's config.json.
        chain: Its members, shapes solved.
        sources: Each source's content.
    """
    bridge = () if chain.bridge is None else (chain.top,)
    members = (*bridge, *chain.anchors, *(placed.member for placed in chain.desnets))
    return Lock(
        ansnet=config,
        epochs=dict(EPOCHS),
        route=tuple(Link(step.student.name, step.teacher.name) for step in chain.route),
        shapes={member.name: member.structure.shape for member in members},
        sources=dict(sources),
        spec=deciding(family),
        vocabulary=None if chain.bridge is None else chain.bridge.vocabulary,
        tokenizer=chain.tokenizer,
    )


def pinned_chain(loaded: LoadedFamily, ansnet: Structure, state: LockState, vocabulary: int | None = None) -> Chain:
    """The chain with the shapes and the route of a lock; only where a DesNet lies in it is worked out again.

    Raises:
        SpecError: The lock lacks a member of the family, or what it holds does not make a chain.
    """
    lock = state.lock
    assert lock is not None
    problems = [
        Problem(loaded.places.nearest((group, index)), f"'{item.name}' is not in {state.name}", "run 'colbuild lock'")
        for group, items in (("anchors", loaded.family.anchors), ("desnets", loaded.family.desnets))
        for index, item in enumerate(items)
        if item.name not in lock.shapes
    ]
    if problems:
        raise spec_error(problems)
    update: dict[str, Any] = {
        "anchors": tuple(_pinned(anchor, lock) for anchor in loaded.family.anchors)
        or pinned_anchors(
            loaded.family, {name: shape for name, shape in lock.shapes.items() if name != BRIDGE}, ansnet
        ),
        "desnets": tuple(_pinned(desnet, lock) for desnet in loaded.family.desnets),
    }
    if loaded.family.bridge is not None and BRIDGE in lock.shapes:
        update["bridge"] = loaded.family.bridge.model_copy(
            update={"params": None, "shape": _request(lock.shapes[BRIDGE])}
        )
    family = loaded.family.model_copy(update=update)
    route = {link.student: link.teacher for link in lock.route}
    chain = resolve_chain(replace(loaded, family=family), ansnet, route, lock.tokenizer, vocabulary)
    built = {member.name for member in (chain.top, *(step.student for step in chain.route))}
    around = (node.name for desnet in chain.desnets for node in desnet.needed)
    lost = next((name for name in around if name not in built), None)
    if lost is not None:
        raise SpecError(f"the route in {state.name} does not reach '{lost}', which a DesNet needs", hint=_MEND)
    for step in chain.route:
        pinned = next(link.teacher for link in lock.route if link.student == step.student.name)
        if pinned != step.teacher.name:
            raise SpecError(
                f"the route in {state.name} does not fit the spec: '{step.student.name}' learns from '{pinned}' there",
                hint=_MEND,
            )
    return chain


_MEND = "'colbuild lock' finds the route again"


def _pinned(item: Sized, lock: Lock) -> Sized:
    """An anchor or DesNet that asks for the very shape in the lock."""
    request = _request(lock.shapes[item.name])
    sizes: dict[str, Any] = {key: None for key in ("params", "max_package") if key in type(item).model_fields}
    return item.model_copy(update={**sizes, "shape": request})


def _request(shape: Shape) -> ShapeRequest:
    return ShapeRequest(**{axis: getattr(shape, axis) for axis in ShapeRequest.model_fields})


# -- what differs -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Change:
    """A value that differs.

    Attributes:
        path: Its keys; a member of a list by its name.
        at: The same in the family as it is now, as places are looked up.
        before: In the lock.
        after: Now.
    """

    path: tuple[str, ...]
    at: tuple[str | int, ...]
    before: Any
    after: Any


def _out_of_date(name: str, differences: Sequence[str]) -> SpecError:
    shown = [f"  {difference}" for difference in differences[:8]]
    more = [f"  and {len(differences) - 8} more"] if len(differences) > 8 else []
    message = "\n".join([f"{name} is out of date", *shown, *more])
    return SpecError(message, hint="'colbuild lock' brings it up to date; --frozen uses it as it is")


def _spec_changes(before: Mapping[str, Any], loaded: LoadedFamily) -> Iterator[str]:
    """What the spec says differently; a line that decides many values is told once."""
    seen = set()
    for change in _walk((), (), before, deciding(loaded.family)):
        place = loaded.places.nearest(change.at) if change.after is not None else None
        what = f"{change.path[-1]} {shown(change.before)} -> {shown(change.after)}"
        if place is None or (place, what) not in seen:
            yield _described(change, loaded.places)
        seen.add((place, what))


def _source_changes(
    lock: Lock, family: Family, source_digest: Callable[[str], str | None]
) -> Iterator[tuple[str, str]]:
    for uri in source_uris(family):
        locked, now = lock.sources.get(uri), source_digest(uri)
        if locked is None:
            yield uri, f"{uri} is not locked"
        elif now is not None and now != locked.digest:
            yield uri, f"{uri} {locked.digest[:12]} -> {now[:12]}"


def _walk(path: tuple[str, ...], at: tuple[str | int, ...], before: Any, after: Any) -> Iterator[_Change]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in sorted(before.keys() | after.keys()):
            yield from _walk((*path, key), (*at, key), before.get(key), after.get(key))
    elif _is_named(before) and _is_named(after):
        yield from _walk_named(path, at, before, after)
    elif before != after:
        yield _Change(path, at, before, after)


def _walk_named(
    path: tuple[str, ...], at: tuple[str | int, ...], before: Sequence[Any], after: Sequence[Any]
) -> Iterator[_Change]:
    """Lists whose items have names are compared by them: an item in front of others does not change the others."""
    old = {item["name"]: item for item in before}
    new = {item["name"]: (index, item) for index, item in enumerate(after)}
    for name, (index, item) in new.items():
        yield from _walk((*path, name), (*at, index), old.get(name), item)
    for name in old.keys() - new.keys():
        yield _Change((*path, name), at, old[name], None)
    kept = [[name for name in names if name in old and name in new] for names in (old, new)]
    if kept[0] != kept[1]:
        yield _Change((*path, "order"), at, ", ".join(kept[0]), ", ".join(kept[1]))


def _is_named(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, Mapping) and "name" in item for item in value)


def _described(change: _Change, places: Places) -> str:
    named = ".".join(change.path)
    if change.after is None and isinstance(change.before, Mapping):
        return f"{named} removed"
    place = places.nearest(change.at)
    where = f"  {place}" if place else ""
    if change.before is None and isinstance(change.after, Mapping):
        return f"{named} added{where}"
    return f"{named} {shown(change.before)} -> {shown(change.after)}{where}"
