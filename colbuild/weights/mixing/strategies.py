"""The strategies of making a DesNet from its two anchors, by their names in a spec."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from colbuild.arch import Shape, Structure, parameters
from colbuild.errors import BuildError
from colbuild.plan.steps.interpolate import InterpolateParams
from colbuild.weights.files.checkpoint import Checkpoint
from colbuild.weights.mixing.alpha_search import Search, donor_alpha, expanded_alpha, group_alpha, nested_alpha
from colbuild.weights.mixing.interpolation import Neighbours
from colbuild.weights.mixing.layer_alpha import Slopes, layer_alpha
from colbuild.weights.mixing.mixture import PATCH, Fill, Mix, even


@dataclass(frozen=True)
class Asked:
    """A DesNet's `interpolate`.

    Attributes:
        method: The strategy.
        fill: How the smaller anchor is expanded.
        alpha: Its share where that is given: a number, or "distance"; "auto" where it is to be found.
        seed: Of what is drawn by lot.
    """

    method: str
    fill: Fill = "donor"
    alpha: float | str = "auto"
    seed: int = 0


def asked_of(params: InterpolateParams) -> Asked:
    """Returns the strategy in the parameters of a step."""
    alpha = "auto" if params.alpha is None else params.alpha
    return Asked(params.method, params.fill or "donor", alpha, params.seed or 0)


@dataclass(frozen=True)
class Ends:
    """The structures that a mixture lies between, and its own."""

    larger: Structure
    smaller: Structure
    desnet: Structure


GIVEN: Final[Mapping[str, Callable[[Asked, Ends], Mix | None]]] = {
    "expand": lambda asked, ends: even(1.0, asked.fill),
    "patch": lambda asked, ends: _patch(ends),
    "global_alpha": lambda asked, ends: _given_alpha(asked, ends),
}
"""Strategies whose mixture follows from shapes alone: no text is needed, and weights are streamed."""

SEARCHES: Final[Mapping[str, Callable[[Asked, Neighbours, Callable[[Mix], Slopes]], Search]]] = {
    "group_alpha": lambda asked, pair, slopes: group_alpha,
    "global_alpha": lambda asked, pair, slopes: donor_alpha if asked.fill == "donor" else expanded_alpha(asked.fill),
    "layer_alpha": lambda asked, pair, slopes: layer_alpha(slopes, [partner is None for partner in pair.partner]),
    "nested": lambda asked, pair, slopes: _nested(pair),
}
"""Strategies that score mixtures on calibration tokens and keep the best."""

CONTROLS: Final[Mapping[str, Callable[[Asked, Checkpoint, Shape], Checkpoint]]] = {
    "random": lambda asked, larger, shape: _random(asked, larger, shape),
    "uniform": lambda asked, larger, shape: _uniform(larger, shape),
}
"""Strategies that are there to be compared with: parts of the larger anchor, chosen without looking."""


def _random(asked: Asked, larger: Checkpoint, shape: Shape) -> Checkpoint:
    # torch is imported by strategies that need it: one that is streamed does not.
    from colbuild.weights.prefix.controls import random_subset

    return random_subset(larger, shape, asked.seed)


def _uniform(larger: Checkpoint, shape: Shape) -> Checkpoint:
    from colbuild.weights.prefix.controls import uniform_subset

    return uniform_subset(larger, shape)


def is_subset(asked: Asked) -> bool:
    """Returns whether a strategy takes the larger anchor's subset, so that it needs no smaller one."""
    return asked.method == "subset" or (asked.method == "global_alpha" and asked.alpha == 0)


def given(asked: Asked, ends: Ends) -> Mix | None:
    """The mixture that a strategy asks for; None where it has to be found.

    Raises:
        BuildError: The strategy cannot make this DesNet of these anchors.
    """
    mixture = GIVEN.get(asked.method)
    return None if mixture is None else mixture(asked, ends)


def _given_alpha(asked: Asked, ends: Ends) -> Mix | None:
    if asked.alpha == "auto":
        return None
    alpha = distance(ends) if asked.alpha == "distance" else float(asked.alpha)
    return even(alpha, asked.fill)


def distance(ends: Ends) -> float:
    """Returns a DesNet's distance from the larger anchor on the way to the smaller one, in parameters: 0 to 1.

    It is the alpha of Chain-of-Learngene (arXiv 2605.07783, section 3.3).
    """
    larger, smaller, own = (parameters(structure) for structure in (ends.larger, ends.smaller, ends.desnet))
    return (larger - own) / (larger - smaller)


def _patch(ends: Ends) -> Mix:
    own, smaller = ends.desnet.shape, ends.smaller.shape
    for axis in ("hidden", "ffn", "heads", "kv_heads"):
        ours, theirs = getattr(own, axis), getattr(smaller, axis)
        if ours != theirs:
            raise BuildError(
                f"method: patch adds layers to the smaller anchor, and this DesNet's {axis} is {ours}, the smaller anchor's is "
                f"{theirs}",
                hint="use the smaller anchor's widths, or method: group_alpha",
            )
    return PATCH


def _nested(pair: Neighbours) -> Search:
    if pair.nested is None:
        raise BuildError(
            "method: nested needs a nested student beside the smaller anchor, and no nested student reaches this shape",
            hint="set elastic: {form: segment} in the smaller anchor's recipe",
        )
    return nested_alpha
