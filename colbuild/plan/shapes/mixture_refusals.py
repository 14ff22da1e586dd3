"""Refuses strategies that cannot make a DesNet from the anchors around it, before a build."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from colbuild.plan.shapes.members import Placed
from colbuild.spec import LoadedFamily, Problem
from colbuild.spec.model.family import DesNet
from colbuild.spec.model.recipe import Recipe

_WIDTHS = ("hidden", "ffn", "heads", "kv_heads")


def method_problems(loaded: LoadedFamily, desnets: Sequence[Placed], recipes: Mapping[str, Recipe]) -> list[Problem]:
    """Returns the problems of DesNets' strategies, each at its place.

    Args:
        loaded: The family.
        desnets: Its DesNets and their places in the chain, in the order of the spec.
        recipes: Name of each anchor -> what it is distilled by.
    """
    return [
        Problem(loaded.places.nearest(("desnets", index, "interpolate", "method")), message, hint)
        for index, (desnet, placed) in enumerate(zip(loaded.family.desnets, desnets, strict=True))
        if placed.smaller is not None
        for message, hint in (*_patch(desnet, placed), *_nested(desnet, placed, recipes))
    ]


def _patch(desnet: DesNet, placed: Placed) -> Iterator[tuple[str, str]]:
    """`patch` adds layers to the smaller anchor, whose widths the DesNet must have."""
    if desnet.interpolate.method != "patch" or placed.smaller is None:
        return
    own, smaller = placed.member.structure.shape, placed.smaller.structure.shape
    unlike = [axis for axis in _WIDTHS if getattr(own, axis) != getattr(smaller, axis)]
    if unlike:
        told = ", ".join(f"{axis} {getattr(own, axis)} instead of {getattr(smaller, axis)}" for axis in unlike)
        same = ", ".join(f"{axis}: {getattr(smaller, axis)}" for axis in ("hidden", "ffn", "heads"))
        yield (
            f"method: patch adds layers to {placed.smaller.called}, and '{desnet.name}' is not as wide: {told}",
            f"use another method, or write shape: {{layers: {own.layers}, {same}}}",
        )


def _nested(desnet: DesNet, placed: Placed, recipes: Mapping[str, Recipe]) -> Iterator[tuple[str, str]]:
    """`nested` needs the student that a segment leaves beside the smaller anchor."""
    if desnet.interpolate.method != "nested" or placed.smaller is None:
        return
    elastic = recipes[placed.smaller.name].elastic
    if elastic is None or elastic.form != "segment":
        yield (
            f"method: nested needs a nested student, and {placed.smaller.called} has none",
            f"write elastic: {{form: segment}} in the recipe of {placed.smaller.called}, or use another method",
        )
