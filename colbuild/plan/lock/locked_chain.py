"""Conversion between a family's chain and its lock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from colbuild.arch import Structure
from colbuild.errors import SpecError
from colbuild.plan.lock.lock import LockState
from colbuild.plan.lock.lock_file import Link, Lock, LockedSource
from colbuild.plan.shapes.bridge_shape import BRIDGE
from colbuild.plan.shapes.by_hand import requested
from colbuild.plan.shapes.chain import Chain, resolve_chain
from colbuild.plan.shapes.placed_anchors import pinned_anchors
from colbuild.plan.steps.operations import epochs
from colbuild.spec import LoadedFamily, Problem, spec_error
from colbuild.spec.model.decides import deciding
from colbuild.spec.model.family import Family, Sized


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
        epochs=epochs(),
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
            update={"params": None, "shape": requested(lock.shapes[BRIDGE])}
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
                f"the route in {state.name} does not fit the spec: '{step.student.name}' has the teacher '{pinned}' there",
                hint=_MEND,
            )
    return chain


_MEND = "'colbuild lock' finds the route again"


def _pinned(item: Sized, lock: Lock) -> Sized:
    """An anchor or DesNet that asks for the very shape in the lock."""
    sizes: dict[str, Any] = {key: None for key in ("params", "max_package") if key in type(item).model_fields}
    return item.model_copy(update={**sizes, "shape": requested(lock.shapes[item.name])})
