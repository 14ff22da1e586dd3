"""Solves a size to a shape: the lengths of a model with the requested number of parameters.

A target is met along a curve of shapes. For an anchor the curve starts at the AnsNet and shrinks depth and FFN in
proportion; hidden width and heads join once these fall below half. For a DesNet it is the straight line between its two
neighbours. The point on the curve is then rounded to legal lengths, and the FFN width takes up what rounding left over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from math import ceil, floor, lcm

from colbuild.arch.architecture import Structure, parameters
from colbuild.arch.shape import Shape

TOLERANCE = 0.01
"""A solved shape has the asked number of parameters within this share."""

_EXACT_ENOUGH = 0.0025
_MULTIPLES = (64, 32, 16, 8, 4, 2, 1)
_JOIN = 0.5
_KERNEL_WIDTH = 8
_WHOLE = 1e-6


@dataclass(frozen=True)
class _Point:
    """A shape with real lengths; heads are counted in kv groups, so that a prefix of them is a whole number of groups."""

    layers: float
    hidden: float
    ffn: float
    kv_heads: float


Fits = Callable[[Shape], bool]
"""Whether a shape will do."""


class NoShapeError(ValueError):
    """No legal shape has the asked size; the message says what comes nearest."""


def solve_down(start: Structure, upper: Shape, target: int, multiple: int = 1) -> Shape:
    """A shape of `target` parameters inside `upper`, on the curve that shrinks `start` (the AnsNet).

    Its FFN width is a multiple of `multiple`.

    Raises:
        NoShapeError: No shape comes within `TOLERANCE` of the target.
    """
    whole = _point(start.shape)

    def curve(share: float) -> _Point:
        widths = min(1.0, share / _JOIN)
        return _Point(whole.layers * share, whole.hidden * widths, whole.ffn * share, whole.kv_heads * widths)

    return _solve(start, curve, _smallest(start, upper, multiple), upper, target, multiple)


def solve_between(start: Structure, larger: Shape, smaller: Shape, target: int, multiple: int = 1) -> Shape:
    """A shape of `target` parameters on the straight line between two nested shapes.

    Its FFN width is a multiple of `multiple`. The number of layers on the line is rounded up, and the FFN is narrower instead,
    if such a shape has the size: an untrained model loses more by a layer than by as many FFN channels (docs/method.md,
    "Shapes").

    Raises:
        NoShapeError: No shape comes within `TOLERANCE` of the target.
    """
    high, low = _point(larger), _point(smaller)

    def curve(share: float) -> _Point:
        return _Point(
            low.layers + share * (high.layers - low.layers),
            low.hidden + share * (high.hidden - low.hidden),
            low.ffn + share * (high.ffn - low.ffn),
            low.kv_heads + share * (high.kv_heads - low.kv_heads),
        )

    return _solve(start, curve, smaller, larger, target, multiple, _fewer_layers)


def largest_between(start: Structure, larger: Shape, smaller: Shape, fits: Fits, multiple: int = 1) -> Shape:
    """The largest shape on the straight line between two nested shapes that fits; `smaller` itself if none is larger.

    Args:
        start: The AnsNet.
        larger: A shape that does not fit, or `smaller` again.
        smaller: One inside it that does.
        fits: Whether a shape will do. What is inside a shape that fits does too.
        multiple: What the FFN width is a multiple of.
    """
    ends = (parameters(start.at(smaller)), parameters(start.at(larger)))
    found = _largest(lambda target: solve_between(start, larger, smaller, target, multiple), *ends, fits)
    return _widened(smaller if found is None else found, larger.ffn, fits, multiple)


def largest_inside(start: Structure, upper: Shape, fits: Fits, multiple: int = 1) -> Shape:
    """The largest shape inside `upper`, on the curve that shrinks `start` (the AnsNet), that fits.

    Raises:
        NoShapeError: None does.
    """
    ends = (parameters(start.at(_smallest(start, upper, multiple))), parameters(start.at(upper)))
    found = _largest(lambda target: solve_down(start, upper, target, multiple), *ends, fits)
    if found is None:
        raise NoShapeError("no shape is small enough")
    return _widened(found, upper.ffn, fits, multiple)


def contains(outer: Shape, inner: Shape) -> bool:
    """Returns whether `inner` is a prefix of `outer` along every axis, so that its weights are a subset."""
    return (
        inner.layers <= outer.layers
        and inner.hidden <= outer.hidden
        and inner.ffn <= outer.ffn
        and inner.kv_heads <= outer.kv_heads
        and inner.head_dim == outer.head_dim
        and inner.vocab == outer.vocab
        and inner.heads * outer.kv_heads == outer.heads * inner.kv_heads
    )


def refusals(shape: Shape, start: Structure) -> list[str]:
    """Returns the reasons why a shape cannot be built from `start` (the AnsNet); empty if it can."""
    reasons, ansnet = [], start.shape
    if start.architecture.ties_widths and shape.hidden != shape.heads * shape.head_dim:
        reasons.append(
            f"hidden {shape.hidden} is not {shape.heads} heads of {shape.head_dim}, and {start.architecture.name} has no other "
            "width"
        )
    elif shape.hidden % shape.heads:
        reasons.append(f"hidden {shape.hidden} is not a multiple of heads {shape.heads}")
    if shape.heads % shape.kv_heads:
        reasons.append(f"heads {shape.heads} is not a multiple of kv_heads {shape.kv_heads}")
    elif shape.heads * ansnet.kv_heads != ansnet.heads * shape.kv_heads:
        reasons.append(
            f"{shape.heads} heads for {shape.kv_heads} kv_heads: the AnsNet has {_group(ansnet)} heads for each kv head, "
            "and a subset keeps this ratio"
        )
    for axis in ("layers", "hidden", "ffn", "heads", "kv_heads"):
        ours, theirs = getattr(shape, axis), getattr(ansnet, axis)
        if ours > theirs:
            reasons.append(f"{axis} {ours} is more than the AnsNet's {theirs}")
    return reasons


def _point(shape: Shape) -> _Point:
    return _Point(shape.layers, shape.hidden, shape.ffn, shape.kv_heads)


def _group(shape: Shape) -> int:
    """Query heads per kv head."""
    return shape.heads // shape.kv_heads


def _smallest(start: Structure, upper: Shape, multiple: int) -> Shape:
    group = _group(start.shape)
    hidden = group * (upper.head_dim if start.architecture.ties_widths else 1)
    return replace(upper, layers=1, hidden=hidden, ffn=multiple, heads=group, kv_heads=1)


def _largest(solve: Callable[[int], Shape], low: int, high: int, fits: Fits) -> Shape | None:
    """The largest solved shape that fits, by bisection over its size to a thousandth; what is left, the FFN takes up."""
    best: Shape | None = None
    while high - low > max(1, low // 1000):
        middle = (low + high) // 2
        try:
            shape = solve(middle)
        except NoShapeError:
            # Sizes have no shape where shapes are few: near the small end, which fits, or between close neighbours.
            shape = None
        if shape is None and best is None:
            low = middle
        elif shape is not None and fits(shape):
            low, best = middle, shape
        else:
            high = middle
    return best


def _widened(shape: Shape, most: int, fits: Fits, multiple: int) -> Shape:
    """The shape with the widest FFN up to `most` that fits, in steps that kernels like."""
    step = lcm(_KERNEL_WIDTH, multiple)
    low, high = shape.ffn // step, most // step
    while low < high:
        middle = (low + high + 1) // 2
        if fits(replace(shape, ffn=middle * step)):
            low = middle
        else:
            high = middle - 1
    return replace(shape, ffn=max(shape.ffn, low * step))


def _fewer_layers(shape: Shape, point: _Point) -> bool:
    """Returns whether a shape has fewer layers than a point."""
    return shape.layers < point.layers - _WHOLE


def _solve(
    start: Structure,
    curve: Callable[[float], _Point],
    lower: Shape,
    upper: Shape,
    target: int,
    multiple: int,
    last: Callable[[Shape, _Point], bool] | None = None,
) -> Shape:
    point = curve(_share(start, curve, target))
    nearest: list[int] = []
    # Widths that kernels like come first, near the curve; where none has the size, any legal one; at last, anywhere.
    for width, lengths in ((_KERNEL_WIDTH, _around), (1, _around), (1, _every)):
        best: tuple[tuple[bool, bool, float], Shape] | None = None
        for shape, off_curve in _candidates(start, point, lower, upper, target, width, multiple, lengths):
            count = parameters(start.at(shape))
            nearest.append(count)
            error = abs(count - target) / target
            comes_last = last is not None and last(shape, point)
            rank = (error > _EXACT_ENOUGH, comes_last, off_curve)
            if error <= TOLERANCE and (best is None or rank < best[0]):
                best = (rank, shape)
        if best is not None:
            return best[1]
    near = f"; the nearest possible has {min(nearest, key=lambda count: abs(count - target)):,}" if nearest else ""
    raise NoShapeError(f"no shape has {target:,} parameters within {TOLERANCE:.0%}{near}")


def _share(start: Structure, curve: Callable[[float], _Point], target: int) -> float:
    """Where on the curve the real-valued parameter count meets the target, by bisection."""
    low, high = 0.0, 1.0
    # Thirty halvings: a billionth of the curve, far below the rounding that follows.
    for _ in range(30):
        middle = (low + high) / 2
        if _count(start, curve(middle)) < target:
            low = middle
        else:
            high = middle
    return high


def _count(start: Structure, point: _Point) -> float:
    """The parameter count at real lengths: `parameters` only multiplies and adds, so it serves for these too."""
    shape = start.shape
    real = Shape(
        layers=point.layers,  # type: ignore[arg-type]
        hidden=point.hidden,  # type: ignore[arg-type]
        ffn=point.ffn,  # type: ignore[arg-type]
        heads=point.kv_heads * _group(shape),  # type: ignore[arg-type]
        kv_heads=point.kv_heads,  # type: ignore[arg-type]
        head_dim=shape.head_dim,
        vocab=shape.vocab,
    )
    return parameters(start.at(real))


def _candidates(
    start: Structure,
    point: _Point,
    lower: Shape,
    upper: Shape,
    target: int,
    width: int,
    multiple: int,
    lengths: Callable[[float, int, int, int], Iterable[int]],
) -> Iterator[tuple[Shape, float]]:
    """Legal shapes around a point, each with how far it lies from it (sum over axes, in shares of the upper shape).

    Hidden widths divide by the head count (transformers' configurations insist) and by `width`; where an architecture ties
    them to the heads there is one for each number of heads. `lengths` gives the lengths of an axis to try: from the point's,
    the bounds, and what they must be multiples of.
    """
    group = _group(start.shape)
    least, most = ceil(lower.ffn / multiple) * multiple, upper.ffn // multiple * multiple
    if least > most:
        return
    for kv_heads in lengths(point.kv_heads, lower.kv_heads, upper.kv_heads, 1):
        heads = kv_heads * group
        tied = heads * upper.head_dim if start.architecture.ties_widths else None
        widths = [tied] if tied else lengths(point.hidden, lower.hidden, upper.hidden, lcm(heads, width))
        for hidden in widths:
            if hidden % heads:
                continue
            for layers in lengths(point.layers, lower.layers, upper.layers, 1):
                frame = replace(upper, layers=layers, hidden=hidden, heads=heads, kv_heads=kv_heads)
                ffn = _fitting_ffn(start, frame, least, most, target, multiple)
                shape = replace(frame, ffn=ffn)
                off = (
                    abs(layers - point.layers) / upper.layers
                    + abs(hidden - point.hidden) / upper.hidden
                    + abs(kv_heads - point.kv_heads) / upper.kv_heads
                    + abs(ffn - point.ffn) / upper.ffn
                )
                yield shape, off


def _around(value: float, low: int, high: int, multiple: int) -> list[int]:
    """Multiples next to a value, inside the bounds; a bound itself counts where it is hit."""
    if low == high:
        return [low]
    below = floor(value / multiple) * multiple
    around = {below - multiple, below, below + multiple, ceil(value / multiple) * multiple + multiple}
    inside = {number for number in around if low <= number <= high and number > 0}
    return sorted(inside | {min(max(round(value), low), high)} if not inside or multiple == 1 else inside)


def _every(_: float, low: int, high: int, multiple: int) -> list[int]:
    """All multiples inside the bounds, and the bounds."""
    return sorted({low, high, *range(ceil(low / multiple) * multiple, high + 1, multiple)})


def _fitting_ffn(start: Structure, frame: Shape, low: int, high: int, target: int, multiple: int) -> int:
    """The FFN width that brings a shape nearest to the target: the roundest number that is near enough.

    It is a multiple of `multiple`, as `low` and `high` are.
    """
    without = parameters(start.at(replace(frame, ffn=0)))
    each = parameters(start.at(replace(frame, ffn=1))) - without
    exact = (target - without) / each
    for step in dict.fromkeys(lcm(number, multiple) for number in _MULTIPLES):
        ffn = min(max(round(exact / step) * step, low), high)
        if abs(ffn - exact) * each <= _EXACT_ENOUGH * target:
            return ffn
    return min(max(round(exact / multiple) * multiple, low), high)
