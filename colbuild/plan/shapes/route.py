"""The cheapest set of distillations that reaches the anchors that a family needs.

::

    AnsNet ───> a100 ───────────────> a60          required: a100, a60; a80 would only cost more
       1          2        (a80)        4

A route is told by positions in the chain, the AnsNet's being 0 and each following model being smaller.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import pairwise

Cost = Callable[[int, int], int]
"""(teacher's position, student's position) -> FLOPs of teaching the student."""

Costs = tuple[int, ...]
"""What a distillation costs, in several ways: the first one counts most."""


def distillation_flops(tokens: int, teacher_forward: int, student_forward: int) -> int:
    """FLOPs of a distillation: the teacher runs forward, the student forward and backward, which is three times forward.

    Args:
        tokens: How many tokens the student learns from.
        teacher_forward: FLOPs of the teacher's forward pass for a token.
        student_forward: The student's.
    """
    return tokens * (teacher_forward + 3 * student_forward)


def cheapest_route(parameters: Sequence[int], cost: Cost, required: Collection[int], max_gap: float) -> tuple[int, ...]:
    """The positions to build, from the AnsNet's on: each but the first is distilled from the one before it.

    It has the fewest FLOPs of all ways to reach every required position, where each built model is taught by a larger built
    one that is at most `max_gap` times its size. Between equals, the one of fewer distillations; then the denser one, whose
    gaps are more even (the smaller sum of ratios); then the one whose last teachers are larger.

    That this is always a path, and never a tree, follows from what `cost` must promise: for the same student, a smaller
    teacher never costs more. So whatever set of models is built, none has a better teacher than the smallest built one that
    is larger than itself: it costs least, its ratio is smallest, and if it is too large, all others are. The best tree on a
    set is therefore the set in order of size. What is left is which set: a shortest path of the directed acyclic graph of all
    distillations that are legal and skip no required position.

    Args:
        parameters: Size of each model, strictly falling; the first is the AnsNet's.
        cost: FLOPs of an edge; for one student they never rise as its teacher gets smaller.
        required: Positions that must be built. The AnsNet always exists.
        max_gap: How many times larger than its student a teacher may be. No gap down to the last required position is wider
            (see `wide_gaps`).
    """
    stops = sorted({0, *required})
    if len(stops) == stops[-1] + 1:
        return tuple(stops)  # everything on the way is required: there is nothing to choose
    path = cheapest_path(_candidates(parameters, cost, stops, max_gap), stops[-1])
    assert path is not None, "a gap is too wide"
    return path


def cheapest_path(edges: Iterable[tuple[int, int, Costs]], end: int) -> tuple[int, ...] | None:
    """The path from 0 to `end` whose sum of costs is the smallest; None if there is none.

    Sums are compared cost by cost, the first one first. Of paths that are equal in all, the one whose last position that
    differs is smaller is taken, so that the same edges give the same path everywhere.

    Args:
        edges: (position, a larger position, costs of the edge), all with as many costs.
        end: Where the path leads.
    """
    edges = list(edges)
    # A single integer for each edge, in which the sum of a cost over any path is too small to reach the cost before it.
    bases = [(end + 1) * (max(costs) + 1) for costs in zip(*(costs for _, _, costs in edges), strict=True)]

    def rank(start: int, costs: Costs) -> int:
        total = 0
        for base, cost in zip(bases, costs, strict=True):
            total = total * base + cost
        return total << end | 1 << start

    # Importing networkx costs a plan of a hundred steps a fifth of its time, and few families leave a choice.
    import networkx

    graph: networkx.DiGraph[int] = networkx.DiGraph()
    graph.add_nodes_from((0, end))
    graph.add_weighted_edges_from(((start, to, rank(start, costs)) for start, to, costs in edges), weight="rank")
    try:
        return tuple(networkx.dijkstra_path(graph, 0, end, weight="rank"))
    except networkx.NetworkXNoPath:
        return None


def stepwise_route(required: Collection[int]) -> tuple[int, ...]:
    """Every position down to the last required one, each distilled from the one before it."""
    return tuple(range(max(required, default=0) + 1))


def wide_gaps(parameters: Sequence[int], max_gap: float) -> list[int]:
    """Positions of the models that nothing may teach: their next larger neighbour is already too large.

    A legal route down to a position exists just when there is none up to there: any route crosses every gap between
    neighbours, by a ratio that is at least theirs.
    """
    return [
        position + 1 for position, (high, low) in enumerate(pairwise(parameters)) if not legal_gap(high, low, max_gap)
    ]


def legal_gap(teacher: int, student: int, max_gap: float) -> bool:
    """Returns whether a model of `teacher` parameters may teach one of `student` parameters."""
    return teacher / student <= max_gap


def _candidates(
    parameters: Sequence[int], cost: Cost, stops: Sequence[int], max_gap: float
) -> Iterator[tuple[int, int, Costs]]:
    """Each distillation that is legal and skips no stop, with its FLOPs, its number, and its ratio in millionths."""
    for stop, end in pairwise(stops):
        for student in range(stop + 1, end + 1):
            for teacher in range(stop, student):
                if legal_gap(parameters[teacher], parameters[student], max_gap):
                    ratio = parameters[teacher] * 1_000_000 // parameters[student]
                    yield teacher, student, (cost(teacher, student), 1, ratio)
