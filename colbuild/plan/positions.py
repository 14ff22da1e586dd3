"""Recipes whose sequences are longer than the AnsNet has positions: told before anything is built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from colbuild.arch import ARCHITECTURES, LEARNED_POSITIONS, positions_key
from colbuild.spec import LoadedFamily, Problem
from colbuild.spec.models import Bridge, Family
from colbuild.spec.places import Path
from colbuild.spec.recipe import Recipe


def position_problems(loaded: LoadedFamily, config: Mapping[str, Any]) -> list[Problem]:
    """Each recipe's `sequence` that is too long, at its place; every model of a family has the AnsNet's positions.

    Args:
        loaded: The family.
        config: The AnsNet's config.json. One that does not tell its positions refuses nothing.
    """
    positions, owner = config.get(positions_key(config)), "AnsNet"
    bridge = loaded.family.bridge
    if bridge is not None and _own_positions(bridge) is not None:
        positions, owner = _own_positions(bridge), "bridge"
    if not isinstance(positions, int):
        return []
    return [
        Problem(
            loaded.places.nearest((*path, "sequence")),
            f"'sequence' is {recipe.sequence} tokens: the {owner} has {positions} positions, and so has every model made of it",
            f"at most sequence: {positions}",
        )
        for path, recipe in _recipes(loaded.family)
        if recipe.sequence > positions
    ]


def _own_positions(bridge: Bridge) -> int | None:
    """How many positions a bridge has, if that is not the AnsNet's number."""
    learned = bridge.architecture is not None and bool(ARCHITECTURES[bridge.architecture].fixed)
    return bridge.positions or (LEARNED_POSITIONS if learned else None)


def _recipes(family: Family) -> Iterator[tuple[Path, Recipe]]:
    if family.bridge is not None:
        yield ("bridge", "recipe"), family.bridge.recipe
    for index, anchor in enumerate(family.anchors):
        yield ("anchors", index, "recipe"), anchor.recipe
    if family.automatic is not None:
        yield ("automatic", "recipe"), family.automatic.recipe
    for index, desnet in enumerate(family.desnets):
        if desnet.recover is not None:
            yield ("desnets", index, "recover"), desnet.recover
        for place, profile in enumerate(desnet.exports):
            if profile.recover is not None:
                yield ("desnets", index, "exports", place, "recover"), profile.recover.recipe()
