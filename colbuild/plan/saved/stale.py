"""Lists the changes since a plan was saved: spec, sources, colbuild, libraries, and store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from colbuild.errors import StalePlanError
from colbuild.plan.changes.differ import Change, Item, differences
from colbuild.plan.changes.shown import listed, shown, where
from colbuild.plan.saved.plan_file import SavedPlan, SavedStep
from colbuild.spec import Places

_SHOWN = 12
"""More changes than this are counted instead of told."""


def require_current(saved: SavedPlan, now: SavedPlan, places: Places) -> None:
    """Refuses a saved plan that is no longer what a build would do.

    Args:
        saved: The plan that was read.
        now: The same family and targets, planned now.
        places: Where each value of the spec is written now.

    Raises:
        StalePlanError: With everything that changed.
    """
    found = list(changes(saved, now, places))
    if not found:
        return
    raise StalePlanError(
        listed(f"the saved plan of {saved.family} is out of date:", found, _SHOWN),
        hint="save a new plan with 'colbuild plan -o' and review it",
    )


def changes(saved: SavedPlan, now: SavedPlan, places: Places) -> Iterator[str]:
    """Yields all differences, causes first; none if the plan is still valid."""
    causes = [*_spec(saved, now, places), *_outside(saved, now), *_colbuild(saved, now)]
    yield from causes
    store = list(_store(saved, now))
    yield from store
    if not causes and not store:
        yield from _rest(saved, now)


def _spec(saved: SavedPlan, now: SavedPlan, places: Places) -> Iterator[str]:
    if saved.spec.path != now.spec.path:
        yield f"it is a plan of {saved.spec.path}, not of {now.spec.path}"
    if saved.targets != now.targets:
        yield f"its targets are {_listed(saved.targets)}, not {_listed(now.targets)}"
    if saved.spec.sha256 != now.spec.sha256:
        yield from (_told(change, places) for change in differences(saved.spec.resolved, now.spec.resolved))


def _listed(targets: Sequence[str]) -> str:
    return ", ".join(targets) or "the whole family"


def _told(change: Change, places: Places) -> str:
    """A differing field as "chain.max_gap 2.5 -> 3.0  specs/family.yaml:12"; items of lists go by their names."""
    name = "".join(f"[{key}]" if isinstance(key, Item) else f".{key}" for key in change.path).removeprefix(".")
    if change.reordered:
        said = "have another order"
    elif isinstance(change.path[-1], Item) and change.before is None:
        said = "is new"
    elif isinstance(change.path[-1], Item) and change.after is None:
        said = "is gone"
    else:
        said = f"{_short(change.before)} -> {_short(change.after)}"
    return f"{name} {said}{where(places, change.at)}"


def _short(value: Any) -> str:
    text = shown(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _outside(saved: SavedPlan, now: SavedPlan) -> Iterator[str]:
    """Sources; those that only one of the plans reads follow from the spec."""
    for uri, digest in now.sources.items():
        before = saved.sources.get(uri, digest)
        if before != digest:
            yield f"source {uri}: {_digest(before)} -> {_digest(digest)}"


def _digest(digest: str | None) -> str:
    return "not fetched" if digest is None else f"sha256:{digest[:12]}…"


def _colbuild(saved: SavedPlan, now: SavedPlan) -> Iterator[str]:
    for op, epoch in now.epochs.items():
        if saved.epochs.get(op, epoch) != epoch:
            yield f"this version of colbuild does '{op}' differently (epoch {saved.epochs[op]} -> {epoch})"
    for name, version in now.versions.items():
        if saved.versions.get(name, version) != version:
            yield f"{name} {saved.versions[name]} -> {version}, which exported graphs depend on"


def _store(saved: SavedPlan, now: SavedPlan) -> Iterator[str]:
    """Steps whose key is the same and whose result came or went."""
    known = {step.id: step for step in saved.steps}
    for step in now.steps:
        before = known.get(step.id)
        if before is None or before.key != step.key or before.result == step.result:
            continue
        if before.result is None:
            yield f"store: {step.id} was planned to run, and is in the store now"
        elif step.result is None:
            yield f"store: {step.id} was in the store, and is not now"
        else:
            yield f"store: {step.id} has another result now"


def _rest(saved: SavedPlan, now: SavedPlan) -> Iterator[str]:
    """What no known cause explains, such as another lock, or a colbuild that solves shapes differently."""
    shapes = {model.name: model.shape for model in saved.models}
    for model in now.models:
        for axis, length in model.shape.items():
            was = shapes.get(model.name, model.shape).get(axis)
            if was != length:
                yield f"{model.name} has another shape: {axis} {was} -> {length}"
    before = {step.id: _what(step) for step in saved.steps}
    after = {step.id: _what(step) for step in now.steps}
    for step in dict.fromkeys((*after, *before)):
        if before.get(step) != after.get(step):
            yield f"{step} " + ("is new" if step not in before else "is gone" if step not in after else "differs")


def _what(step: SavedStep) -> tuple[str | None, str | None]:
    return step.key, step.result
