"""The place of each DesNet in the chain: by its size, its largest package, or its shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from colbuild.arch import Shape, parameters
from colbuild.arch.solving import TOLERANCE, NoShapeError, contains, largest_between, largest_inside, solve_between
from colbuild.plan.shapes.by_hand import SIZE_HINT, legal, refused
from colbuild.plan.shapes.members import Member, Placed, excess
from colbuild.plan.shapes.package_size import ffn_multiple, fitting, over_limit, package_bytes
from colbuild.plan.shapes.placed_anchors import too_small
from colbuild.spec import LoadedFamily
from colbuild.spec.model.family import DesNet
from colbuild.units import format_bytes, format_count

Further = Callable[[int], str]
"""A size below the chain -> a hint with the anchors that carry the chain down to it."""


@dataclass(frozen=True)
class Nodes:
    """The chain while DesNets find their places in it.

    Attributes:
        nodes: The AnsNet and every anchor, from large to small.
        asked: Name of an anchor -> the size that it was asked for.
        tokenizer: Bytes of the tokenizer's file, if known.
    """

    nodes: tuple[Member, ...]
    asked: Mapping[str, int]
    tokenizer: int | None

    def placed(self, desnet: DesNet, shape: Shape, larger: Member, smaller: Member) -> Placed:
        """A DesNet between two neighbours, or that equals one of them."""
        member = Member.of(desnet.name, self.nodes[0].structure.at(shape))
        # Rounded to a legal shape, a size close to a neighbour's can be that neighbour.
        equal = next((node for node in (larger, smaller) if node.shape == shape), None)
        return Placed(member, equal or larger, None if equal else smaller)


class _MisplacedError(Exception):
    """The mistake in a DesNet's place, and a hint: (message, hint)."""


def place_desnet(loaded: LoadedFamily, index: int, chain: Nodes, further: Further) -> Placed:
    """The place of a DesNet in a chain, and its shape there.

    Args:
        loaded: The family.
        index: The DesNet's.
        chain: The AnsNet and the anchors.
        further: Tells how the chain can go on.

    Raises:
        RefusedError: It lies outside the chain, or no shape is what it asks for.
    """
    desnet, path = loaded.family.desnets[index], ("desnets", index)
    key = next(key for key in ("shape", "params", "max_package") if getattr(desnet, key) is not None)
    try:
        if desnet.shape is not None:
            shape = legal(loaded, (*path, key), f"'{desnet.name}'", desnet.shape, chain.nodes[0].structure)
            return _by_shape(desnet, shape, chain)
        if desnet.params is not None:
            return _by_size(desnet, desnet.params, chain, further)
        return _by_package(desnet, chain, further)
    except _MisplacedError as error:
        raise refused(loaded, (*path, key), *error.args) from None


def _by_shape(desnet: DesNet, shape: Shape, chain: Nodes) -> Placed:
    for node in chain.nodes:
        if node.shape == shape:
            return chain.placed(desnet, shape, node, node)
    for larger, smaller in pairwise(chain.nodes):
        if contains(larger.shape, shape) and contains(shape, smaller.shape):
            return chain.placed(desnet, shape, larger, smaller)
    raise _outside(Member.of(desnet.name, chain.nodes[0].structure.at(shape)), chain.nodes)


def _by_size(desnet: DesNet, target: int, chain: Nodes, further: Further) -> Placed:
    nodes, multiple = chain.nodes, ffn_multiple(desnet)
    top, last = nodes[0], nodes[-1]
    for node in nodes:
        if target in (node.parameters, chain.asked.get(node.name)) and node.shape.ffn % multiple == 0:
            return chain.placed(desnet, node.shape, node, node)
    named = f"DesNet '{desnet.name}' ({format_count(target)})"
    if target > top.parameters:
        raise _MisplacedError(
            f"{named} is larger than {top.called} ({top.size})", f"a family only holds models smaller than {top.called}"
        )
    if last.parameters * (1 - TOLERANCE) <= target <= last.parameters:
        if last.shape.ffn % multiple:
            raise _uneven(desnet, last, multiple)
        # A size is met within a tolerance, and one this close leaves no room for another anchor.
        return chain.placed(desnet, last.shape, last, last)
    if target < last.parameters:
        message = f"{named} is outside the chain: smaller than {last.called}, its last link ({last.size})"
        raise _MisplacedError(message, further(target))
    if target == top.parameters:
        raise _uneven(desnet, top, multiple)
    larger, smaller = next((high, low) for high, low in pairwise(nodes) if low.parameters <= target < high.parameters)
    try:
        shape = solve_between(top.structure, larger.shape, smaller.shape, target, multiple)
    except NoShapeError as error:
        message = f"DesNet '{desnet.name}' between {larger.called} and {smaller.called}: {error}"
        raise _MisplacedError(message, SIZE_HINT) from None
    return chain.placed(desnet, shape, larger, smaller)


def _by_package(desnet: DesNet, chain: Nodes, further: Further) -> Placed:
    """Between the smallest member whose package is too large and the largest whose package is not."""
    nodes, multiple = chain.nodes, ffn_multiple(desnet)
    top, fits = nodes[0], fitting(nodes[0].structure, desnet, chain.tokenizer)
    at = next((index for index, node in enumerate(nodes) if fits(node.shape)), None)
    if at is None:
        raise _package_too_small(desnet, chain, further)
    larger, smaller = nodes[max(at - 1, 0)], nodes[at]
    shape = largest_between(top.structure, larger.shape, smaller.shape, fits, multiple)
    if shape.ffn % multiple:
        raise _uneven(desnet, smaller, multiple)
    return chain.placed(desnet, shape, larger, smaller)


# -- what is wrong, and what would be right ---------------------------------------------------------------------------


def _package_too_small(desnet: DesNet, chain: Nodes, further: Further) -> _MisplacedError:
    """No member of the chain keeps a `max_package`."""
    tokenizer, multiple = chain.tokenizer, ffn_multiple(desnet)
    top, lowest = chain.nodes[0].structure, chain.nodes[-1]
    try:
        inside = largest_inside(top, lowest.shape, fitting(top, desnet, tokenizer), multiple)
    except NoShapeError:
        return _MisplacedError(*too_small(desnet, top, lowest.shape, multiple, tokenizer))
    profile = over_limit(lowest.structure, desnet, tokenizer)
    assert profile is not None
    size = package_bytes(lowest.structure, profile, tokenizer)
    return _MisplacedError(
        f"DesNet '{desnet.name}' is outside the chain: a package of {lowest.called}, its last link, takes "
        f"{format_bytes(size)} as '{profile.name}'",
        f"the smallest that works is max_package: {size}; or {further(parameters(top.at(inside)))}",
    )


def _uneven(desnet: DesNet, node: Member, multiple: int) -> _MisplacedError:
    message = (
        f"DesNet '{desnet.name}' would equal {node.called}, whose ffn {node.shape.ffn} is not a multiple of {multiple}, which "
        "its profiles need"
    )
    return _MisplacedError(message, SIZE_HINT)


def _outside(member: Member, nodes: tuple[Member, ...]) -> _MisplacedError:
    """A shape lies between no two neighbours."""
    above = [node for node in nodes if node.parameters > member.parameters]
    below = [node for node in nodes if node.parameters < member.parameters]
    shape, last = member.shape, nodes[-1]
    if not below:
        return _MisplacedError(
            f"DesNet '{member.name}' ({member.size}) is outside the chain: smaller than {last.called}, its last link "
            f"({last.size})",
            f"add an anchor of at most {member.size} with at most these lengths: {_lengths(shape)}",
        )
    larger, smaller = above[-1], below[0]
    sides = ((excess(shape, larger.shape), larger), (excess(smaller.shape, shape, "less than"), smaller))
    wrong = " and ".join(f"{text} of {node.called}" for text, node in sides if text)
    return _MisplacedError(
        f"DesNet '{member.name}' ({member.size}) is not between two members of the chain: {wrong}",
        f"keep every axis between those of {smaller.called} ({_lengths(smaller.shape)}) and {larger.called} "
        f"({_lengths(larger.shape)}), or add an anchor with this very shape",
    )


def _lengths(shape: Shape) -> str:
    return f"layers {shape.layers}, hidden {shape.hidden}, ffn {shape.ffn}, heads {shape.heads}"
