"""Places anchors automatically: the fewest, at the least cost, that reach every DesNet (`anchors: auto`).

::

    AnsNet ──────> a54 ──────> a30          the last one first: the largest shape inside every DesNet;
                    │                       then, if the gap above it is too wide, what divides it
             every DesNet lies between two neighbours, or equals one

Shapes by hand are what they are: each anchor contains them or lies inside them. Sizes that are solved follow the chain, so
they only say how far down it must go. Between the AnsNet and the last anchor, candidates lie on the straight line between
the two, at even ratios and where a gap is as wide as it may be; if none of these leads past a shape by hand, also on the
lines through such shapes. Among the nested paths over candidates, with no gap wider than `max_gap`, the one of the fewest
anchors is taken, of these the one of the fewest FLOPs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, lcm, log

from colbuild.arch import Shape, Structure, forward_flops, parameters
from colbuild.arch.solving import TOLERANCE, NoShapeError, contains, largest_inside, refusals, solve_between, solve_down
from colbuild.plan.shapes.by_hand import SIZE_HINT, RefusedError, completed, refused, requested
from colbuild.plan.shapes.package_size import ffn_multiple, fitting, over_limit, package_bytes
from colbuild.plan.shapes.proposals import named
from colbuild.plan.shapes.route import cheapest_path, distillation_flops, legal_gap
from colbuild.spec import LoadedFamily, Problem
from colbuild.spec.model.family import Anchor, DesNet, Family
from colbuild.spec.model.recipe import Recipe
from colbuild.units import format_bytes, format_count

_EVEN = 24
"""Candidates at even ratios between two shapes."""
_MOST = 8
"""A chain that needs more anchors than these to cross a gap is a mistake, or `max_gap` is."""
_LINES = 8
"""No more shapes by hand than these have lines of candidates through them."""
_SLACK = 0.997
"""A solved shape may be a little off its size; this close to the widest gap it still keeps it."""


@dataclass(frozen=True)
class Placement:
    """Anchors that were placed.

    Attributes:
        anchors: From large to small, their shapes given by hand.
        asked: Name of an anchor -> the size that it was placed for, which its shape only has within a tolerance.
    """

    anchors: tuple[Anchor, ...]
    asked: Mapping[str, int]


def place_anchors(loaded: LoadedFamily, ansnet: Structure, recipe: Recipe, tokenizer: int | None) -> Placement:
    """Places the anchors of a family that has none.

    What is wrong with a DesNet by itself (larger than the AnsNet, a shape that cannot be) is left to whoever places it.

    Args:
        loaded: The family.
        ansnet: The ancestor.
        recipe: What every anchor is distilled by.
        tokenizer: Bytes of the tokenizer's file, if known.

    Raises:
        RefusedError: No chain can reach a DesNet.
    """
    by_hand = list(dict.fromkeys(_by_hand(loaded.family.desnets, ansnet)))
    last, asked = _last(loaded, ansnet, by_hand, tokenizer)
    if last == ansnet.shape:
        return Placement((), {})
    max_gap = loaded.family.chain.max_gap
    path = _divided(ansnet, last, by_hand, recipe, max_gap)
    if path is None:
        high, low = parameters(ansnet), parameters(ansnet.at(last))
        written = ("chain", "max_gap") in loaded.places.known
        message = (
            f"no chain of at most {_MOST} anchors reaches from the AnsNet ({format_count(high)}) to "
            f"{format_count(low)}, which its DesNets need, with no gap wider than max_gap: {max_gap:g}"
        )
        hint = "allow wider gaps, or write the anchors yourself"
        if by_hand:
            hint += "; every anchor must contain or lie inside each shape in the spec, and these shapes may exclude all anchors"
        raise refused(loaded, ("chain", "max_gap") if written else ("anchors",), message, hint)
    taken = ["ansnet", "bridge", *(desnet.name for desnet in loaded.family.desnets)]
    proposal = named([parameters(ansnet.at(shape)) for shape in path], taken, path)
    anchors = tuple(Anchor(name=item.name, shape=item.shape, recipe=recipe) for item in proposal)
    return Placement(anchors, {} if asked is None else {anchors[-1].name: asked})


def pinned_anchors(family: Family, shapes: Mapping[str, Shape], ansnet: Structure) -> tuple[Anchor, ...]:
    """The anchors of a family that were placed before, from the shapes of all its members; none if they are written.

    Args:
        family: The family.
        shapes: Name -> shape of every anchor and DesNet, as a lock holds them.
        ansnet: The ancestor.
    """
    if family.automatic is None:
        return ()
    desnets = {desnet.name for desnet in family.desnets}
    placed = [(name, shape) for name, shape in shapes.items() if name not in desnets]
    placed.sort(key=lambda item: parameters(ansnet.at(item[1])), reverse=True)
    recipe = family.automatic.recipe
    return tuple(Anchor(name=name, shape=requested(shape), recipe=recipe) for name, shape in placed)


def _by_hand(desnets: Sequence[DesNet], ansnet: Structure) -> Iterator[Shape]:
    for desnet in desnets:
        if desnet.shape is not None:
            shape = completed(desnet.shape, ansnet.shape)
            if shape != ansnet.shape and not refusals(shape, ansnet):
                yield shape


# -- how far down -----------------------------------------------------------------------------------------------------


def _last(
    loaded: LoadedFamily, ansnet: Structure, by_hand: Sequence[Shape], tokenizer: int | None
) -> tuple[Shape, int | None]:
    """The largest shape inside all DesNets, and the size it was solved for; the AnsNet's if none is smaller."""
    desnets = loaded.family.desnets
    multiple = lcm(*(ffn_multiple(desnet) for desnet in desnets))
    last = _meet(by_hand, ansnet.shape)
    asked: int | None = None
    sizes = {desnet.params: index for index, desnet in reversed(list(enumerate(desnets))) if desnet.params is not None}
    target = min(sizes, default=None)
    room = parameters(ansnet.at(last)) * (1 if last == ansnet.shape else 1 - TOLERANCE)
    if target is not None and target < room:
        try:
            shape = solve_down(ansnet, last, target, multiple)
        except NoShapeError as error:
            message = f"DesNet '{desnets[sizes[target]].name}': {error}"
            raise refused(loaded, ("desnets", sizes[target], "params"), message, SIZE_HINT) from None
        last, asked = shape, target
    problems = []
    for index, desnet in enumerate(desnets):
        if desnet.max_package is None or fitting(ansnet, desnet, tokenizer)(last):
            continue
        try:
            last, asked = largest_inside(ansnet, last, fitting(ansnet, desnet, tokenizer), multiple), None
        except NoShapeError:
            place = loaded.places.nearest(("desnets", index, "max_package"))
            problems.append(Problem(place, *too_small(desnet, ansnet, last, multiple, tokenizer)))
    if problems:
        raise RefusedError(*problems)
    return last, asked


def too_small(desnet: DesNet, ansnet: Structure, upper: Shape, multiple: int, tokenizer: int | None) -> tuple[str, str]:
    """Returns the message for a `max_package` that no shape keeps, and the smallest possible one."""
    group = ansnet.shape.heads // ansnet.shape.kv_heads
    least = replace(upper, layers=1, hidden=group * 8, ffn=lcm(multiple, 8), heads=group, kv_heads=1)
    structure = ansnet.at(least)
    profile = over_limit(structure, desnet, tokenizer) or desnet.exports[0]
    size = package_bytes(structure, profile, tokenizer)
    return (
        f"DesNet '{desnet.name}': no model of this family is small enough for '{profile.name}'",
        f"its tokenizer and smallest embedding alone make a package of {format_bytes(size)}",
    )


def _meet(shapes: Sequence[Shape], ansnet: Shape) -> Shape:
    """The largest shape inside all of some."""
    every = [ansnet, *shapes]
    kv_heads = min(shape.kv_heads for shape in every)
    heads = kv_heads * (ansnet.heads // ansnet.kv_heads)
    hidden = min(shape.hidden for shape in every)
    return replace(
        ansnet,
        layers=min(shape.layers for shape in every),
        hidden=max(hidden // heads * heads, heads),
        ffn=min(shape.ffn for shape in every),
        heads=heads,
        kv_heads=kv_heads,
    )


# -- what divides the gap ---------------------------------------------------------------------------------------------


def _divided(
    ansnet: Structure, last: Shape, by_hand: Sequence[Shape], recipe: Recipe, max_gap: float
) -> list[Shape] | None:
    """The anchors from the AnsNet to the last one, which is among them; None if no few lead there."""
    top = ansnet.shape
    if legal_gap(parameters(ansnet), parameters(ansnet.at(last)), max_gap):
        return [last]
    inner = [shape for shape in by_hand if shape != last]
    plain = [*inner, *_on_line(ansnet, top, last, max_gap)]
    path = _cheapest(ansnet, last, plain, by_hand, recipe, max_gap)
    if path is None and inner:
        lines = [
            shape
            for middle in inner[:_LINES]
            for ends in ((top, middle), (middle, last))
            for shape in _on_line(ansnet, *ends, max_gap)
        ]
        path = _cheapest(ansnet, last, [*plain, *lines], by_hand, recipe, max_gap)
    return path if path is None or len(path) <= _MOST else None


def _on_line(ansnet: Structure, larger: Shape, smaller: Shape, max_gap: float) -> Iterator[Shape]:
    """Candidates between two nested shapes: at even ratios, and as far from either end as gaps may be wide."""
    high, low = parameters(ansnet.at(larger)), parameters(ansnet.at(smaller))
    if high <= low:
        return
    widest = max_gap * _SLACK
    steps = range(1, min(ceil(log(high / low) / log(widest)), _MOST) + 1)
    sizes = {round(high * (low / high) ** (step / (_EVEN + 1))) for step in range(1, _EVEN + 1)}
    sizes |= {round(high / widest**step) for step in steps} | {round(low * widest**step) for step in steps}
    for size in sorted(sizes):
        if low < size < high:
            try:
                yield solve_between(ansnet, larger, smaller, size)
            except NoShapeError:
                continue


def _cheapest(
    ansnet: Structure,
    last: Shape,
    candidates: Sequence[Shape],
    by_hand: Sequence[Shape],
    recipe: Recipe,
    max_gap: float,
) -> list[Shape] | None:
    """The shortest nested path from the AnsNet to the last anchor, of as many anchors the one of the fewest FLOPs."""
    usable = {
        shape
        for shape in candidates
        if shape not in (ansnet.shape, last)
        and contains(shape, last)
        and all(contains(shape, other) or contains(other, shape) for other in by_hand)
    }
    sizes = {shape: parameters(ansnet.at(shape)) for shape in (ansnet.shape, *usable, last)}
    flops = {shape: forward_flops(ansnet.at(shape), recipe.sequence) for shape in sizes}
    order = sorted(sizes, key=lambda shape: (sizes[shape], shape), reverse=True)
    edges = (
        (at, place, (1, distillation_flops(recipe.tokens, flops[teacher], flops[student])))
        for place, student in enumerate(order)
        for at, teacher in enumerate(order[:place])
        if legal_gap(sizes[teacher], sizes[student], max_gap) and contains(teacher, student)
    )
    path = cheapest_path(edges, order.index(last))
    return None if path is None else [order[place] for place in path[1:]]
