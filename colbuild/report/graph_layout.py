"""Lays out a layered drawing: columns from left to right, few crossings, no line through a box.

An edge over several columns gets a bend in each column between, which takes a place as a box does::

    column 0      1        2
    [source] ─> [order] ─> [distill]
        └──────── · ─────> [evaluate]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

_SWEEPS = 8
"""How often crossings are reduced; more changes nothing that one sees."""

Node = str | tuple[str, str, int]
"""A box, or the bend of an edge in a column."""


@dataclass(frozen=True)
class Placing:
    """The place of each box, in units: columns count from 0, rows are in heights of a box.

    Attributes:
        boxes: Box -> (column, row).
        routes: For each edge the (column, row) of its ends and bends, in the order of the edges.
    """

    boxes: Mapping[str, tuple[int, float]]
    routes: Sequence[Sequence[tuple[int, float]]]

    @property
    def columns(self) -> int:
        """The number of columns."""
        return 1 + max((column for column, _ in self.boxes.values()), default=0)

    @property
    def rows(self) -> float:
        """The last row."""
        return max((row for route in (list(self.boxes.values()), *self.routes) for _, row in route), default=0.0)


def place(boxes: Sequence[str], edges: Sequence[tuple[str, str]], bend: float = 0.5) -> Placing:
    """Lays out an acyclic graph.

    Args:
        boxes: Its nodes; ties are drawn in this order.
        edges: From one node to another.
        bend: How many rows the line of a long edge takes beside boxes.
    """
    import networkx

    graph: networkx.DiGraph[str] = networkx.DiGraph()
    graph.add_nodes_from(boxes)
    graph.add_edges_from(edges)
    column: dict[Node, int] = {
        node: level for level, group in enumerate(networkx.topological_generations(graph)) for node in group
    }
    paths: list[list[Node]] = []
    columns: list[list[Node]] = [[] for _ in range(1 + max(column.values(), default=0))]
    for box in boxes:
        columns[column[box]].append(box)
    for source, target in edges:
        bends: list[Node] = [(source, target, level) for level in range(column[source] + 1, column[target])]
        for level, node in enumerate(bends, column[source] + 1):
            column[node] = level
            columns[level].append(node)
        paths.append([source, *bends, target])
    before, after = _neighbours(paths)
    columns = _ordered(columns, before, after)
    heights = {node: 1.0 if isinstance(node, str) else bend for node in column}
    rows = _rows(columns, before, after, heights)
    return Placing(
        {box: (column[box], rows[box]) for box in boxes},
        [[(column[node], rows[node]) for node in path] for path in paths],
    )


Neighbours = Mapping[Node, Sequence[Node]]


def _neighbours(paths: Sequence[Sequence[Node]]) -> tuple[Neighbours, Neighbours]:
    """What lies one column before and after each node."""
    before: dict[Node, list[Node]] = {}
    after: dict[Node, list[Node]] = {}
    for path in paths:
        for left, right in pairwise(path):
            after.setdefault(left, []).append(right)
            before.setdefault(right, []).append(left)
    return before, after


def _ordered(columns: Sequence[Sequence[Node]], before: Neighbours, after: Neighbours) -> list[list[Node]]:
    """The columns with each node near the middle of its neighbours: forth over the columns, then back."""
    ordered = [list(nodes) for nodes in columns]
    for sweep in range(_SWEEPS):
        forth = sweep % 2 == 0
        places = {node: float(index) for nodes in ordered for index, node in enumerate(nodes)}
        for nodes in ordered if forth else reversed(ordered):
            middles = {node: _mean(node, before if forth else after, places) for node in nodes}
            nodes.sort(key=middles.__getitem__)
            places.update((node, float(index)) for index, node in enumerate(nodes))
    return ordered


def _mean(node: Node, neighbours: Neighbours, places: Mapping[Node, float]) -> float:
    near = neighbours.get(node, ())
    return sum(places[other] for other in near) / len(near) if near else places[node]


def _rows(
    columns: Sequence[Sequence[Node]], before: Neighbours, after: Neighbours, heights: Mapping[Node, float]
) -> dict[Node, float]:
    """Rows that keep the order in each column and bring nodes close to their neighbours' middle; the first row is 0."""
    rows: dict[Node, float] = {}
    for nodes in columns:
        _stack(nodes, dict.fromkeys(nodes, 0.0), heights, rows)
    for sweep in range(_SWEEPS):
        forth = sweep % 2 == 0
        for nodes in columns if forth else reversed(columns):
            wanted = {node: _mean(node, before if forth else after, rows) for node in nodes}
            _stack(nodes, wanted, heights, rows)
    first = min(rows.values(), default=0.0)
    return {node: row - first for node, row in rows.items()}


def _stack(
    nodes: Sequence[Node], wanted: Mapping[Node, float], heights: Mapping[Node, float], rows: dict[Node, float]
) -> None:
    """Places a column's nodes as close to what they want as their heights allow.

    Nodes that would overlap become a block that lies at the mean of its members' wishes, as in isotonic regression.
    """
    blocks: list[tuple[float, int]] = []
    offsets: list[float] = []
    for index, node in enumerate(nodes):
        gap = (heights[nodes[index - 1]] + heights[node]) / 2 if index else 0.0
        offsets.append(offsets[-1] + gap if index else 0.0)
        total, count = wanted[node] - offsets[-1], 1
        while blocks and blocks[-1][0] / blocks[-1][1] >= total / count:
            above, members = blocks.pop()
            total, count = total + above, count + members
        blocks.append((total, count))
    starts = [total / count for total, count in blocks for _ in range(count)]
    rows.update((node, start + offset) for node, start, offset in zip(nodes, starts, offsets, strict=True))
