"""Pins results in the store, by their name in a family or by their digest."""

from __future__ import annotations

from colbuild.errors import BuildError
from colbuild.plan.changes.states import State
from colbuild.plan.drawing.target import find_step
from colbuild.plan.family_plan import FamilyPlan, Workspace
from colbuild.plan.planning import unbuilt
from colbuild.run.sharing.listing import Maker, makers
from colbuild.store import Store
from colbuild.store.collecting.pins import SHORTEST_PREFIX, Pin, is_prefix, pin
from colbuild.store.collecting.roots import read_roots
from colbuild.store.objects import published


def pin_result(plan: FamilyPlan, workspace: Workspace, name: str) -> tuple[Pin, bool]:
    """Pins what a step of a family made, given by its id or by what it makes; also says whether that is new.

    Raises:
        UnknownNameError: The family has no such step, or several.
        BuildError: Its result is not in the store, or the disk refuses.
    """
    family = plan.loaded.family.name
    step = find_step(plan.graph, name, unbuilt(plan.chain, plan.graph))
    [planned] = [planned for planned in plan.steps if planned.step.id == step.id]
    if planned.state is not State.CACHED or planned.output is None:
        raise BuildError(
            f"{step.id} of {family} cannot be pinned: it is not in the store ({planned.why})",
            hint=f"build it first: colbuild build --target '{name}'",
        )
    wanted = Pin(planned.output, " ".join(name.split()), step.id, family)
    return wanted, pin(workspace.store, wanted)


def pin_digest(store: Store, prefix: str) -> tuple[Pin, bool]:
    """Pins the result whose digest begins so; also says whether that is new.

    Raises:
        BuildError: No result has such a digest, several have, or the disk refuses.
    """
    digest = one_digest(store, prefix)
    maker = makers(store, read_roots(store)).get(digest, Maker())
    step, family = min(maker.steps, default=""), min(maker.families, default="")
    wanted = Pin(digest, prefix, step, family)
    return wanted, pin(store, wanted)


def one_digest(store: Store, prefix: str) -> str:
    """The digest of the one result in a store that begins so.

    Raises:
        BuildError: No result's does, several do, or the prefix is too short.
    """
    if not is_prefix(prefix):
        raise BuildError(
            f"'{prefix}' is not a digest",
            hint=f"give at least its first {SHORTEST_PREFIX} digits, as 'colbuild cache ls' shows",
        )
    found = [digest for digest in published(store.layout) if digest.startswith(prefix)]
    if len(found) != 1:
        problem = "several results begin" if found else "no result in the store begins"
        raise BuildError(f"{problem} with {prefix}", hint="'colbuild cache ls' shows the digests")
    return found[0]
