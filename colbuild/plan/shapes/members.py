"""The members of a family: the shape of every anchor and DesNet, and where in the chain a DesNet lies."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise

from colbuild.arch import Shape, Structure, parameters
from colbuild.arch.solving import (
    TOLERANCE,
    NoShapeError,
    contains,
    largest_between,
    largest_inside,
    refusals,
    solve_between,
    solve_down,
)
from colbuild.plan.shapes.bridge_shape import BRIDGE
from colbuild.plan.shapes.package_size import ffn_multiple, fitting, over_limit, package_bytes
from colbuild.plan.shapes.placed_anchors import completed, place_anchors, too_small
from colbuild.plan.shapes.proposals import Proposal, down_to, pasted
from colbuild.plan.shapes.route import wide_gaps
from colbuild.spec import LoadedFamily, Problem, spec_error
from colbuild.spec.model.family import Anchor, DesNet, Family, Sized
from colbuild.units import format_bytes, format_count

ANSNET = "ansnet"
"""The AnsNet's name among the members, and its folder's in `out/`."""

HEADS = {ANSNET: "the AnsNet", BRIDGE: "the bridge"}
"""What the chain can begin with -> what messages call it."""


@dataclass(frozen=True)
class Member:
    """A model of the family: its name, structure and stored parameters."""

    name: str
    structure: Structure
    parameters: int


@dataclass(frozen=True)
class Placed:
    """A DesNet and its place in the chain.

    Attributes:
        member: The DesNet.
        larger: The neighbour above it, or the member that it equals.
        smaller: The neighbour below it; None when it equals `larger`.
        packages: Name of each of its profiles -> bytes that its package takes at most.
        mixed: Whether it is made of both neighbours; else of the larger one alone, and the smaller one is not needed.
    """

    member: Member
    larger: Member
    smaller: Member | None
    packages: Mapping[str, int] = field(default_factory=dict)
    mixed: bool = True

    @property
    def needed(self) -> tuple[Member, ...]:
        """The neighbours that it is made of."""
        return (self.larger, self.smaller) if self.smaller is not None and self.mixed else (self.larger,)


@dataclass(frozen=True)
class Members:
    """The models of a family.

    Attributes:
        nodes: The AnsNet, or the bridge in its place, and every anchor, from large to small; each contains the next.
        desnets: Every DesNet in the order of the spec.
        anchors: What the spec says of each anchor, or what was decided of those that colbuild placed itself.
    """

    nodes: tuple[Member, ...]
    desnets: tuple[Placed, ...]
    anchors: tuple[Anchor, ...]

    @property
    def required(self) -> frozenset[int]:
        """Positions in `nodes` of the neighbours that each DesNet is made of."""
        position = {node.name: index for index, node in enumerate(self.nodes)}
        return frozenset(position[node.name] for desnet in self.desnets for node in desnet.needed)


def solve_members(loaded: LoadedFamily, top: Member, tokenizer: int | None = None) -> Members:
    """Solves every shape of a family and places its DesNets; the anchors too where that is left to colbuild.

    Args:
        loaded: The family.
        top: What every other member is a subset of: the AnsNet, or the bridge.
        tokenizer: Bytes of the tokenizer's file where they are known; they count in packages.

    Raises:
        SpecError: With every size and shape that cannot be, each at its place.
    """
    ansnet = top.structure
    problems: list[Problem] = []
    asked = {anchor.name: anchor.params for anchor in loaded.family.anchors if anchor.params is not None}
    if loaded.family.automatic is not None and not loaded.family.anchors:
        placement = place_anchors(loaded, ansnet, loaded.family.automatic.recipe, tokenizer, problems)
        loaded = replace(loaded, family=loaded.family.model_copy(update={"anchors": placement.anchors}))
        asked.update(placement.asked)
    nodes = (top, *_anchors(loaded, top, problems))
    if problems:
        raise spec_error(problems)
    chain = _Nodes(nodes, asked, tokenizer)
    desnets = [_place(loaded, index, chain, problems) for index in range(len(loaded.family.desnets))]
    if problems:
        raise spec_error(problems)
    placed = tuple(
        replace(
            desnet,
            packages=_packages(desnet.member, item, tokenizer),
            mixed=desnet.smaller is not None and item.interpolate.reads_smaller,
        )
        for desnet, item in zip(desnets, loaded.family.desnets, strict=True)
        if desnet is not None
    )
    return Members(nodes, placed, loaded.family.anchors)


@dataclass(frozen=True)
class _Nodes:
    """The chain while DesNets find their places in it.

    Attributes:
        nodes: The AnsNet and every anchor, from large to small.
        asked: Name of an anchor -> the size that it was asked for.
        tokenizer: Bytes of the tokenizer's file, if known.
    """

    nodes: tuple[Member, ...]
    asked: Mapping[str, int]
    tokenizer: int | None


def _packages(member: Member, desnet: DesNet, tokenizer: int | None) -> Mapping[str, int]:
    return {profile.name: package_bytes(member.structure, profile, tokenizer) for profile in desnet.exports}


def with_anchors(loaded: LoadedFamily, index: int, proposal: Proposal) -> LoadedFamily:
    """The family with more anchors from an index on, to try it; they have no places."""
    anchors = loaded.family.anchors
    recipe = anchors[min(index, len(anchors) - 1)].recipe
    more = tuple(Anchor(name=item.name, params=item.params, shape=item.shape, recipe=recipe) for item in proposal)
    update = {"anchors": (*anchors[:index], *more, *anchors[index:])}
    return replace(loaded, family=loaded.family.model_copy(update=update))


def taken_names(family: Family) -> Collection[str]:
    """Names that a further anchor cannot have."""
    return [*HEADS, *(item.name for item in (*family.anchors, *family.desnets))]


def called(member: Member) -> str:
    """What messages call the AnsNet, the bridge or an anchor."""
    return HEADS.get(member.name, f"anchor '{member.name}'")


def _anchors(loaded: LoadedFamily, top: Member, problems: list[Problem]) -> tuple[Member, ...]:
    members: list[Member] = []
    for index, anchor in enumerate(loaded.family.anchors):
        path = ("anchors", index)
        above = members[-1] if members else top
        shape = _requested(loaded, path, anchor, top, problems)
        if shape is None and anchor.params is not None:
            if anchor.params >= above.parameters:
                rule = "is not smaller than" if above is top else "must be smaller than the anchor before it,"
                _report(
                    loaded,
                    (*path, "params"),
                    f"anchor '{anchor.name}' ({format_count(anchor.params)}) {rule} "
                    f"{called(above)} ({format_count(above.parameters)})",
                    f"an anchor is smaller than {called(top)}"
                    if above is top
                    else "list the anchors from the largest to the smallest",
                    problems,
                )
                continue
            try:
                shape = solve_down(top.structure, above.structure.shape, anchor.params)
            except NoShapeError as error:
                _report(loaded, (*path, "params"), f"anchor '{anchor.name}': {error}", _HINT_SIZE, problems)
                continue
            if shape == above.structure.shape:
                message = (
                    f"anchor '{anchor.name}' ({format_count(anchor.params)}) would have the shape of {called(above)}"
                )
                size = format_count(above.parameters)
                _report(loaded, (*path, "params"), message, f"ask for clearly less than its {size}", problems)
                continue
        if shape is None:
            continue
        if shape == above.structure.shape or not contains(above.structure.shape, shape):
            _report(
                loaded,
                (*path, "shape"),
                f"anchor '{anchor.name}' does not fit inside {called(above)}: {_excess(shape, above.structure.shape)}",
                "every axis of an anchor is at most that of the anchor before it",
                problems,
            )
            continue
        structure = top.structure.at(shape)
        members.append(Member(anchor.name, structure, parameters(structure)))
    return tuple(members)


_HINT_SIZE = "ask for another size, or give the shape by hand"


def _place(loaded: LoadedFamily, index: int, chain: _Nodes, problems: list[Problem]) -> Placed | None:
    desnet = loaded.family.desnets[index]
    path = ("desnets", index)
    nodes = chain.nodes
    top = nodes[0]
    if desnet.params is not None:
        return _place_by_size(loaded, path, desnet, chain, problems)
    if desnet.shape is None:
        return _place_by_package(loaded, path, desnet, chain, problems)
    shape = _requested(loaded, path, desnet, top, problems)
    if shape is None:
        return None
    member = _member(desnet.name, top, shape)
    for node in nodes:
        if node.structure.shape == shape:
            return Placed(member, node, None)
    for larger, smaller in pairwise(nodes):
        if contains(larger.structure.shape, shape) and contains(shape, smaller.structure.shape):
            return Placed(member, larger, smaller)
    _report(loaded, (*path, "shape"), *_outside_by_shape(member, nodes), problems)
    return None


def _place_by_size(
    loaded: LoadedFamily, path: tuple[str | int, ...], desnet: DesNet, chain: _Nodes, problems: list[Problem]
) -> Placed | None:
    target, nodes, multiple = desnet.params, chain.nodes, ffn_multiple(desnet)
    assert target is not None
    for node in nodes:
        if target in (node.parameters, chain.asked.get(node.name)) and node.structure.shape.ffn % multiple == 0:
            return Placed(_member(desnet.name, nodes[0], node.structure.shape), node, None)
    size = format_count(target)
    if target > nodes[0].parameters:
        message = (
            f"DesNet '{desnet.name}' ({size}) is larger than {called(nodes[0])} ({format_count(nodes[0].parameters)})"
        )
        _report(
            loaded, (*path, "params"), message, f"a family only holds models smaller than {called(nodes[0])}", problems
        )
        return None
    if nodes[-1].parameters * (1 - TOLERANCE) <= target <= nodes[-1].parameters:
        if nodes[-1].structure.shape.ffn % multiple:
            _report(loaded, (*path, "params"), *_uneven(desnet, nodes[-1], multiple), problems)
            return None
        # A size is met within a tolerance, and one this close leaves no room for another anchor.
        return Placed(_member(desnet.name, nodes[0], nodes[-1].structure.shape), nodes[-1], None)
    if target < nodes[-1].parameters:
        last = f"{called(nodes[-1])}, its last link ({format_count(nodes[-1].parameters)})"
        message = f"DesNet '{desnet.name}' ({size}) is outside the chain: smaller than {last}"
        _report(loaded, (*path, "params"), message, _further(loaded, nodes, target), problems)
        return None
    if target == nodes[0].parameters:
        _report(loaded, (*path, "params"), *_uneven(desnet, nodes[0], multiple), problems)
        return None
    larger, smaller = next((high, low) for high, low in pairwise(nodes) if low.parameters <= target < high.parameters)
    try:
        shape = solve_between(nodes[0].structure, larger.structure.shape, smaller.structure.shape, target, multiple)
    except NoShapeError as error:
        message = f"DesNet '{desnet.name}' between {called(larger)} and {called(smaller)}: {error}"
        _report(loaded, (*path, "params"), message, _HINT_SIZE, problems)
        return None
    member = _member(desnet.name, nodes[0], shape)
    # Rounded to a legal shape, a size close to a neighbour's can be that neighbour.
    equal = next((node for node in (larger, smaller) if node.structure.shape == shape), None)
    return Placed(member, equal or larger, None if equal else smaller)


def _place_by_package(
    loaded: LoadedFamily, path: tuple[str | int, ...], desnet: DesNet, chain: _Nodes, problems: list[Problem]
) -> Placed | None:
    """Between the smallest member whose package is too large and the largest whose package is not."""
    nodes, multiple = chain.nodes, ffn_multiple(desnet)
    top, fits = nodes[0], fitting(nodes[0].structure, desnet, chain.tokenizer)
    at = next((index for index, node in enumerate(nodes) if fits(node.structure.shape)), None)
    if at is None:
        _report(loaded, (*path, "max_package"), *_package_too_small(loaded, desnet, chain), problems)
        return None
    larger, smaller = nodes[max(at - 1, 0)], nodes[at]
    shape = largest_between(top.structure, larger.structure.shape, smaller.structure.shape, fits, multiple)
    if shape.ffn % multiple:
        _report(loaded, (*path, "max_package"), *_uneven(desnet, smaller, multiple), problems)
        return None
    equal = shape == smaller.structure.shape
    return Placed(_member(desnet.name, top, shape), smaller if equal else larger, None if equal else smaller)


def _package_too_small(loaded: LoadedFamily, desnet: DesNet, chain: _Nodes) -> tuple[str, str]:
    """What is wrong with a `max_package` that no member of the chain keeps, and what would be right."""
    nodes, tokenizer, multiple = chain.nodes, chain.tokenizer, ffn_multiple(desnet)
    top, lowest = nodes[0], nodes[-1]
    try:
        inside = largest_inside(
            top.structure, lowest.structure.shape, fitting(top.structure, desnet, tokenizer), multiple
        )
    except NoShapeError:
        return too_small(desnet, top.structure, lowest.structure.shape, multiple, tokenizer)
    profile = over_limit(lowest.structure, desnet, tokenizer)
    assert profile is not None
    size = package_bytes(lowest.structure, profile, tokenizer)
    return (
        f"DesNet '{desnet.name}' is outside the chain: a package of {called(lowest)}, its last link, takes "
        f"{format_bytes(size)} as '{profile.name}'",
        f"the smallest that works is max_package: {size}; or "
        + _further(loaded, nodes, parameters(top.structure.at(inside))),
    )


def _uneven(desnet: DesNet, node: Member, multiple: int) -> tuple[str, str]:
    return (
        f"DesNet '{desnet.name}' would equal {called(node)}, whose ffn {node.structure.shape.ffn} is no multiple of the "
        f"{multiple} that its profiles ask for",
        "ask for another size, or give the shape by hand",
    )


def _requested(
    loaded: LoadedFamily, path: tuple[str | int, ...], item: Sized, top: Member, problems: list[Problem]
) -> Shape | None:
    """The shape given by hand, completed by the AnsNet's; None when there is none or it cannot be."""
    if item.shape is None:
        return None
    given = item.shape.model_dump(exclude_none=True)
    shape = completed(item.shape, top.structure.shape)
    reasons = refusals(shape, top.structure)
    for reason in reasons:
        axis = next((axis for axis in given if reason.startswith(axis)), None)
        at = (*path, "shape", axis) if axis else (*path, "shape")
        _report(loaded, at, f"'{item.name}': {reason}", None, problems)
    return None if reasons else shape


def _further(loaded: LoadedFamily, nodes: tuple[Member, ...], target: int) -> str:
    """The anchors that carry a chain on to a size, to be pasted below its last one."""
    family, size = loaded.family, format_count(target)
    for proposal in down_to(nodes[-1].parameters, target, family.chain.max_gap, taken_names(family)):
        trial: list[Problem] = []
        longer = _anchors(with_anchors(loaded, len(family.anchors), proposal), nodes[0], trial)
        if not trial and not wide_gaps(
            [node.parameters for node in (nodes[0], *longer)][-len(proposal) - 1 :], family.chain.max_gap
        ):
            anchors = f"an anchor of at most {size}" if len(proposal) == 1 else f"anchors down to {size}"
            return f"add {anchors}:{pasted(proposal)}"
    return "ask for a larger size: no few anchors lead to this one"


def _outside_by_shape(member: Member, nodes: tuple[Member, ...]) -> tuple[str, str]:
    """What is wrong with a shape that lies between no two neighbours, and what would be right."""
    above = [node for node in nodes if node.parameters > member.parameters]
    below = [node for node in nodes if node.parameters < member.parameters]
    size = format_count(member.parameters)
    if not below:
        last = nodes[-1]
        return (
            f"DesNet '{member.name}' ({size}) is outside the chain: smaller than {called(last)}, its last link "
            f"({format_count(last.parameters)})",
            f"add an anchor of at most {size} with at most these lengths: {_lengths(member.structure.shape)}",
        )
    larger, smaller = above[-1], below[0]
    shape = member.structure.shape
    wrong = [
        f"{text} of {called(node)}"
        for text, node in (
            (_excess(shape, larger.structure.shape), larger),
            (_excess(smaller.structure.shape, shape, "less than"), smaller),
        )
        if text
    ]
    return (
        f"DesNet '{member.name}' ({size}) lies between no two members of the chain: {' and '.join(wrong)}",
        f"keep every axis between those of {called(smaller)} ({_lengths(smaller.structure.shape)}) and "
        f"{called(larger)} ({_lengths(larger.structure.shape)}), or add an anchor with this very shape",
    )


def _excess(inner: Shape, outer: Shape, relation: str = "more than") -> str:
    """Which axes of `inner` exceed those of `outer`; told from the smaller side when the relation is "less than"."""
    parts = []
    for axis in ("layers", "hidden", "ffn", "kv_heads"):
        ours, theirs = getattr(inner, axis), getattr(outer, axis)
        if ours > theirs:
            first, second = (ours, theirs) if relation == "more than" else (theirs, ours)
            parts.append(f"{axis} {first} is {relation} the {second}")
    return ", ".join(parts) or ("the shapes are equal" if inner == outer else "")


def _lengths(shape: Shape) -> str:
    return f"layers {shape.layers}, hidden {shape.hidden}, ffn {shape.ffn}, heads {shape.heads}"


def _member(name: str, top: Member, shape: Shape) -> Member:
    structure = top.structure.at(shape)
    return Member(name, structure, parameters(structure))


def _report(
    loaded: LoadedFamily, path: tuple[str | int, ...], message: str, hint: str | None, problems: list[Problem]
) -> None:
    problems.append(Problem(loaded.places.nearest(path), message, hint))
