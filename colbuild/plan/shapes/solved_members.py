"""Solves the shape of every anchor and DesNet of a family, and places anchors for `anchors: auto`."""

from __future__ import annotations

from dataclasses import replace

from colbuild.arch.solving import NoShapeError, contains, solve_down
from colbuild.plan.shapes.by_hand import SIZE_HINT, RefusedError, legal, refused
from colbuild.plan.shapes.desnet_places import Nodes, place_desnet
from colbuild.plan.shapes.members import Member, Members, excess, taken_names
from colbuild.plan.shapes.package_size import package_bytes
from colbuild.plan.shapes.placed_anchors import place_anchors
from colbuild.plan.shapes.proposals import Proposal, down_to, pasted
from colbuild.plan.shapes.route import wide_gaps
from colbuild.spec import LoadedFamily, Problem, spec_error
from colbuild.spec.model.family import Anchor
from colbuild.units import format_count


def solve_members(loaded: LoadedFamily, top: Member, tokenizer: int | None = None) -> Members:
    """Solves every shape of a family and places its DesNets; the anchors too where that is left to colbuild.

    Args:
        loaded: The family.
        top: What every other member is a subset of: the AnsNet, or the bridge.
        tokenizer: Bytes of the tokenizer's file where they are known; they count in packages.

    Raises:
        SpecError: With every size and shape that cannot be, each at its place.
    """
    problems: list[Problem] = []
    asked = {anchor.name: anchor.params for anchor in loaded.family.anchors if anchor.params is not None}
    if loaded.family.automatic is not None and not loaded.family.anchors:
        try:
            placement = place_anchors(loaded, top.structure, loaded.family.automatic.recipe, tokenizer)
        except RefusedError as error:
            raise spec_error(error.problems) from None
        loaded = replace(loaded, family=loaded.family.model_copy(update={"anchors": placement.anchors}))
        asked.update(placement.asked)
    nodes = _solved_anchors(loaded, top, problems)
    if problems:
        raise spec_error(problems)
    chain, desnets = Nodes(nodes, asked, tokenizer), []
    for index, item in enumerate(loaded.family.desnets):
        try:
            placed = place_desnet(loaded, index, chain, lambda size: _further(loaded, nodes, size))
        except RefusedError as error:
            problems += error.problems
            continue
        packages = {
            profile.name: package_bytes(placed.member.structure, profile, tokenizer) for profile in item.exports
        }
        mixed = placed.smaller is not None and item.interpolate.reads_smaller
        desnets.append(replace(placed, packages=packages, mixed=mixed))
    if problems:
        raise spec_error(problems)
    return Members(nodes, tuple(desnets), loaded.family.anchors)


def with_anchors(loaded: LoadedFamily, index: int, proposal: Proposal) -> LoadedFamily:
    """The family with more anchors from an index on, to try it; they have no places."""
    anchors = loaded.family.anchors
    recipe = anchors[min(index, len(anchors) - 1)].recipe
    more = tuple(Anchor(name=item.name, params=item.params, shape=item.shape, recipe=recipe) for item in proposal)
    update = {"anchors": (*anchors[:index], *more, *anchors[index:])}
    return replace(loaded, family=loaded.family.model_copy(update=update))


def _solved_anchors(loaded: LoadedFamily, top: Member, problems: list[Problem]) -> tuple[Member, ...]:
    """The head of the chain, and every anchor that can be; what is wrong with the others is told."""
    nodes = [top]
    for index in range(len(loaded.family.anchors)):
        try:
            nodes.append(_solved_anchor(loaded, index, nodes[-1], top))
        except RefusedError as error:
            problems += error.problems
    return tuple(nodes)


def _solved_anchor(loaded: LoadedFamily, index: int, above: Member, top: Member) -> Member:
    anchor, path = loaded.family.anchors[index], ("anchors", index)
    if anchor.shape is None:
        return _sized_anchor(loaded, path, anchor, above, top)
    shape = legal(loaded, (*path, "shape"), f"'{anchor.name}'", anchor.shape, top.structure)
    if shape == above.shape or not contains(above.shape, shape):
        message = f"anchor '{anchor.name}' does not fit inside {above.called}: {excess(shape, above.shape)}"
        hint = "make every axis at most that of the anchor before it"
        raise refused(loaded, (*path, "shape"), message, hint)
    return Member.of(anchor.name, top.structure.at(shape))


def _sized_anchor(
    loaded: LoadedFamily, path: tuple[str | int, ...], anchor: Anchor, above: Member, top: Member
) -> Member:
    assert anchor.params is not None
    path, named = (*path, "params"), f"anchor '{anchor.name}'"
    size = format_count(anchor.params)
    if anchor.params >= above.parameters:
        first = above is top
        rule = "is not smaller than" if first else "must be smaller than the anchor before it,"
        hint = (
            f"write a size smaller than {top.called}" if first else "list the anchors from the largest to the smallest"
        )
        raise refused(loaded, path, f"{named} ({size}) {rule} {above.called} ({above.size})", hint)
    try:
        shape = solve_down(top.structure, above.shape, anchor.params)
    except NoShapeError as error:
        raise refused(loaded, path, f"{named}: {error}", SIZE_HINT) from None
    if shape == above.shape:
        message = f"{named} ({size}) would have the shape of {above.called}"
        raise refused(loaded, path, message, f"write clearly less than its {above.size}")
    return Member.of(anchor.name, top.structure.at(shape))


def _further(loaded: LoadedFamily, nodes: tuple[Member, ...], target: int) -> str:
    """The anchors that carry a chain on to a size, to be pasted below its last one."""
    family, size = loaded.family, format_count(target)
    for proposal in down_to(nodes[-1].parameters, target, family.chain.max_gap, taken_names(family)):
        trial: list[Problem] = []
        longer = _solved_anchors(with_anchors(loaded, len(family.anchors), proposal), nodes[0], trial)
        if not trial and not wide_gaps(
            [node.parameters for node in longer[-len(proposal) - 1 :]], family.chain.max_gap
        ):
            anchors = f"an anchor of at most {size}" if len(proposal) == 1 else f"anchors down to {size}"
            return f"add {anchors}:{pasted(proposal)}"
    return "ask for a larger size: no short chain of anchors reaches this one"
