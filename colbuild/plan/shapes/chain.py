"""The chain of a family: every member's shape, the neighbours of each DesNet, and the teachers.

::

    AnsNet (ordered) ──> a100 ──────────────> a76           a30
         134.5M          103M     │           76M           not built: no DesNet needs it
                               phone 90M            a DesNet lies between two neighbours,
                                                    or equals one of them and costs nothing
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from colbuild.arch import Structure, forward_flops
from colbuild.errors import SpecError
from colbuild.plan.shapes.bridge_shape import BRIDGE, Bridged, solve_bridge
from colbuild.plan.shapes.members import ANSNET, HEADS, Member, Members, Placed, taken_names
from colbuild.plan.shapes.mixture_refusals import method_problems
from colbuild.plan.shapes.proposals import Proposal, allowing, between, pasted
from colbuild.plan.shapes.route import cheapest_route, distillation_flops, legal_gap, stepwise_route, wide_gaps
from colbuild.plan.shapes.solved_members import solve_members, with_anchors
from colbuild.spec import LoadedFamily, Problem, spec_error
from colbuild.spec.model.family import MAX_GAP, Family
from colbuild.spec.model.recipe import Recipe


@dataclass(frozen=True)
class Distillation:
    """An anchor that is built, and what it learns from.

    Attributes:
        student: The anchor.
        teacher: The AnsNet or a larger anchor that is built; the student's shape lies inside its shape.
        flops: What it costs over the student's tokens: the teacher forward, the student forward and backward.
        required: Whether a DesNet needs the anchor; else it is a step on the way to one that is.
    """

    student: Member
    teacher: Member
    flops: int
    required: bool


@dataclass(frozen=True)
class Unbuilt:
    """An anchor that is not built, and why not."""

    anchor: Member
    reason: str


@dataclass(frozen=True)
class Chain:
    """A family with every shape solved.

    Attributes:
        ansnet: The pretrained ancestor.
        bridge: The bridge, if the family needs one; then it, and not the AnsNet, is what every other member is a subset of.
        anchors: Every anchor, largest first, in the order of the spec.
        desnets: Every DesNet in the order of the spec.
        route: The anchors that are built, largest first, each with its teacher: `top` for the first, for each other the
            one before it. It holds the neighbours of every DesNet.
        unbuilt: The other anchors, largest first.
        warnings: What is legal but worth saying.
        recipes: What each anchor is distilled by, in the order of `anchors`.
        automatic: Whether colbuild placed the anchors itself.
        tokenizer: Bytes of the tokenizer in a package, as DesNets were sized by them; None if they were bounded.
    """

    ansnet: Member
    bridge: Bridged | None
    anchors: tuple[Member, ...]
    desnets: tuple[Placed, ...]
    route: tuple[Distillation, ...]
    unbuilt: tuple[Unbuilt, ...]
    warnings: tuple[str, ...]
    recipes: tuple[Recipe, ...]
    automatic: bool
    tokenizer: int | None = None

    @property
    def top(self) -> Member:
        """The head of the chain: the bridge, or the AnsNet itself."""
        return self.ansnet if self.bridge is None else Member.of(BRIDGE, self.bridge.structure)

    @property
    def teachers(self) -> Mapping[str, Member]:
        """Name of each anchor that is built -> what it learns from."""
        return {step.student.name: step.teacher for step in self.route}


def resolve_chain(
    loaded: LoadedFamily,
    ansnet: Structure,
    pinned: Collection[str] | None = None,
    tokenizer: int | None = None,
    vocabulary: int | None = None,
) -> Chain:
    """Solves every shape of a family, places its DesNets and decides which distillations reach them.

    What is in the store has no say in it: the same spec gives the same chain everywhere.

    Args:
        loaded: The family.
        ansnet: The pretrained ancestor.
        pinned: The anchors to build, where a lock has decided that already; by default the route is found.
        tokenizer: Bytes of the tokenizer's file, which count in packages; by default they are bounded by the vocabulary.
        vocabulary: Ids of the tokenizer that the bridge names, if it names one.

    Raises:
        SpecError: With every size and shape that cannot be, or every gap that no teacher may cross, each at its place.
    """
    bridge = solve_bridge(loaded, ansnet, vocabulary)
    ancestor = Member.of(ANSNET, ansnet)
    head = ancestor if bridge is None else Member.of(BRIDGE, bridge.structure)
    members = solve_members(loaded, head, tokenizer)
    problems = _gap_problems(loaded, members, tokenizer) if pinned is None else []
    recipes = {node.name: anchor.recipe for node, anchor in zip(members.nodes[1:], members.anchors, strict=True)}
    problems += method_problems(loaded, members.desnets, recipes)
    if problems:
        raise spec_error(problems)
    route = _route(loaded.family, members, pinned)
    anchors = members.nodes[1:]
    return Chain(
        ancestor,
        bridge,
        anchors,
        members.desnets,
        route,
        _unbuilt(anchors, route),
        _warnings(route, loaded.family, bridge),
        tuple(anchor.recipe for anchor in members.anchors),
        loaded.family.automatic is not None,
        tokenizer,
    )


def _route(family: Family, members: Members, pinned: Collection[str] | None) -> tuple[Distillation, ...]:
    nodes, required = members.nodes, members.required

    def cost(teacher: int, student: int) -> int:
        recipe = members.anchors[student - 1].recipe
        # Each model contains the next, so that of two teachers the smaller one's forward pass is the cheaper.
        above, below = (forward_flops(nodes[place].structure, recipe.sequence) for place in (teacher, student))
        return distillation_flops(recipe.tokens, above, below)

    if pinned is not None:
        positions = tuple(index for index, node in enumerate(nodes) if node.name in (*HEADS, *pinned))
    elif family.chain.route == "stepwise":
        positions = stepwise_route(required)
    else:
        positions = cheapest_route([node.parameters for node in nodes], cost, required, family.chain.max_gap)
    return tuple(
        Distillation(nodes[student], nodes[teacher], cost(teacher, student), student in required)
        for teacher, student in pairwise(positions)
    )


def _unbuilt(anchors: Sequence[Member], route: Sequence[Distillation]) -> tuple[Unbuilt, ...]:
    built = {step.student.name for step in route}
    return tuple(Unbuilt(anchor, _why_unbuilt(anchor, route)) for anchor in anchors if anchor.name not in built)


def _why_unbuilt(anchor: Member, route: Sequence[Distillation]) -> str:
    over = next((step for step in route if step.student.parameters < anchor.parameters), None)
    if over is None:
        return "no DesNet needs it"
    teacher = HEADS.get(over.teacher.name, over.teacher.name)
    return f"no DesNet needs it, and {over.student.name} is cheaper from {teacher} directly"


def _warnings(route: Sequence[Distillation], family: Family, bridge: Bridged | None) -> tuple[str, ...]:
    """Gaps that are wide although the family's `max_gap` allows them, and a bridge that leads nowhere."""
    idle = family.bridge is not None and bridge is None
    unused = "the bridge is not built: the family has the AnsNet's own architecture and vocabulary"
    return (*((unused,) if idle else ()), *_wide(route))


def _wide(route: Sequence[Distillation]) -> tuple[str, ...]:
    return tuple(
        f"{step.student.called} is {step.teacher.parameters / step.student.parameters:.1f} times smaller than its "
        f"teacher, {step.teacher.called}; beyond {MAX_GAP:g} times a student learns less: consider an anchor between them"
        for step in route
        if not legal_gap(step.teacher.parameters, step.student.parameters, MAX_GAP)
    )


# -- gaps that no teacher may cross -----------------------------------------------------------------------------------


def _gap_problems(loaded: LoadedFamily, members: Members, tokenizer: int | None) -> list[Problem]:
    """Each gap above a needed anchor that is too wide, with anchors that close it; all of these work together."""
    nodes, limit = members.nodes, loaded.family.chain.max_gap
    problems = []
    mended = loaded
    for position in wide_gaps([node.parameters for node in nodes[: max(members.required, default=0) + 1]], limit):
        high, low = nodes[position - 1], nodes[position]
        message = (
            f"no route reaches {low.called} ({low.size}): {high.called} "
            f"({high.size}) is {high.parameters / low.parameters:.2f} times larger, and the limit is "
            f"{limit:g} times"
        )
        hint = f"allow it with max_gap: {allowing(high.parameters, low.parameters)} in 'chain'"
        mending = _mend(mended, nodes[0], low.name, tokenizer)
        if mending is not None:
            proposal, mended = mending
            what = "an anchor" if len(proposal) == 1 else "anchors"
            hint += f", or add {what} between the two:{pasted(proposal)}"
        size = "shape" if loaded.family.anchors[position - 1].params is None else "params"
        place = loaded.places.nearest(("anchors", position - 1, size))
        problems.append(Problem(place, message, hint))
    return problems


def _mend(loaded: LoadedFamily, top: Member, below: str, tokenizer: int | None) -> tuple[Proposal, LoadedFamily] | None:
    """Anchors that close the gap above an anchor, and the family with them; None if none are found."""
    members, limit = solve_members(loaded, top, tokenizer), loaded.family.chain.max_gap
    nodes = members.nodes
    at = next(position for position, node in enumerate(nodes) if node.name == below)
    inside = [desnet.member.structure for desnet in members.desnets if desnet.smaller == nodes[at]]
    for proposal in between(nodes[at - 1].structure, nodes[at].structure, limit, inside, taken_names(loaded.family)):
        trial = with_anchors(loaded, at - 1, proposal)
        try:
            tried = solve_members(trial, top, tokenizer).nodes
        except SpecError:
            continue
        if not wide_gaps([node.parameters for node in tried[at - 1 : at + len(proposal) + 1]], limit):
            return proposal, trial
    return None
