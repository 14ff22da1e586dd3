"""A layered drawing as SVG: text in, text out, every word escaped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Final

from colbuild.report.graph_layout import place

_BOX_HEIGHT: Final = 38.0
_ROW: Final = 50.0
_GAP: Final = 54.0
_MARGIN: Final = 20.0
_HEADER: Final = 56.0
_LEGEND: Final = 118.0
_LETTER: Final = 7.4
"""A little more than the mean width of a letter at 13 px, so that names fit without measuring fonts."""


@dataclass(frozen=True)
class Box:
    """A node of the drawing.

    Attributes:
        id: What edges call it.
        kind: The small word above.
        name: The word below.
        sign: A mark in its corner.
        note: What is told when the pointer rests on it.
        fill: Its colour.
        line: The colour of its outline.
    """

    id: str
    kind: str
    name: str
    sign: str
    note: str
    fill: str
    line: str


def svg(
    boxes: Sequence[Box], edges: Sequence[tuple[str, str]], title: str, legend: Sequence[tuple[str, str, str]]
) -> str:
    """Draws an acyclic graph, its columns from left to right.

    Args:
        boxes: The nodes.
        edges: From one node's id to another's.
        title: Stands above.
        legend: A text, a fill and an outline for each colour.
    """
    placing = place([box.id for box in boxes], edges)
    widths = [84.0] * placing.columns
    for box in boxes:
        column, _ = placing.boxes[box.id]
        # The sign takes a letter's width and a margin beside the kind.
        widths[column] = max(widths[column], _LETTER * max(len(box.name), len(box.kind) + 3) + 20)
    lefts = [_MARGIN + sum(widths[:column]) + _GAP * column for column in range(placing.columns)]
    width = max(lefts[-1] + widths[-1], _LETTER * len(title) * 1.3, _LEGEND * len(legend)) + _MARGIN
    height = _HEADER + placing.rows * _ROW + _BOX_HEIGHT + _MARGIN

    def middle(row: float) -> float:
        return _HEADER + row * _ROW + _BOX_HEIGHT / 2

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" font-family="Helvetica, Arial, sans-serif" role="img">',
        f"<title>{_text(title)}</title>",
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="#ffffff"/>',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" fill="#868e96"/></marker></defs>',
        f'<text x="{_MARGIN:.0f}" y="22" font-size="15" font-weight="bold" fill="#212529">{_text(title)}</text>',
        *_legend(legend),
        '<g fill="none" stroke="#868e96" stroke-width="1.2">',
    ]
    for route in placing.routes:
        points: list[tuple[float, float]] = []
        for index, (column, row) in enumerate(route):
            # A line leaves a box on its right and enters on its left; it crosses the columns between straight.
            if index > 0:
                points.append((lefts[column], middle(row)))
            if index < len(route) - 1:
                points.append((lefts[column] + widths[column], middle(row)))
        parts.append(f'<path d="{_curve(points)}" marker-end="url(#tip)"/>')
    parts.append("</g>")
    for box in boxes:
        column, row = placing.boxes[box.id]
        parts += _box(box, lefts[column], middle(row) - _BOX_HEIGHT / 2, widths[column])
    return "\n".join([*parts, "</svg>"]) + "\n"


def _box(box: Box, left: float, top: float, width: float) -> list[str]:
    return [
        f"<g><title>{_text(f'{box.id}: {box.note}')}</title>",
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{_BOX_HEIGHT:.0f}" rx="5" fill="{_text(box.fill)}" '
        f'stroke="{_text(box.line)}"/>',
        f'<text x="{left + 9:.1f}" y="{top + 14:.1f}" font-size="10" fill="#495057">{_text(box.kind)}</text>',
        f'<text x="{left + width - 9:.1f}" y="{top + 15:.1f}" font-size="13" font-weight="bold" text-anchor="end" '
        f'fill="{_text(box.line)}">{_text(box.sign)}</text>',
        f'<text x="{left + 9:.1f}" y="{top + 30:.1f}" font-size="13" fill="#212529">{_text(box.name)}</text></g>',
    ]


def _legend(legend: Sequence[tuple[str, str, str]]) -> list[str]:
    parts = []
    for index, (text, fill, line) in enumerate(legend):
        left = _MARGIN + index * _LEGEND
        parts += [
            f'<rect x="{left + 0.5:.1f}" y="32" width="12" height="12" rx="3" fill="{_text(fill)}" stroke="{_text(line)}"/>',
            f'<text x="{left + 18:.1f}" y="42" font-size="11" fill="#495057">{_text(text)}</text>',
        ]
    return parts


def _curve(points: Sequence[tuple[float, float]]) -> str:
    """A smooth line through the gaps between columns, straight within them."""
    (left, top), *_ = points
    steps = [f"M{left:.1f} {top:.1f}"]
    for index, ((x0, y0), (x1, y1)) in enumerate(pairwise(points)):
        bend = (x1 - x0) / 2
        in_gap = index % 2 == 0
        steps.append(
            f"C{x0 + bend:.1f} {y0:.1f} {x1 - bend:.1f} {y1:.1f} {x1:.1f} {y1:.1f}" if in_gap else f"L{x1:.1f} {y1:.1f}"
        )
    return " ".join(steps)


def _text(text: str) -> str:
    """Text for SVG: marks escaped, and without the control characters that no XML may hold."""
    return escape("".join(char if char.isprintable() else " " for char in text))
