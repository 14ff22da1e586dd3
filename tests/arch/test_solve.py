"""A solved shape has the asked size, is legal, and nests between its neighbours."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from colbuild.arch import Shape, parameters, read_structure
from colbuild.arch.solving import TOLERANCE, NoShapeError, contains, refusals, solve_between, solve_down
from tests.helpers.configs import SMOLLM2

ANSNET = read_structure(SMOLLM2)


def size(shape: Shape) -> int:
    return parameters(ANSNET.at(shape))


@given(st.integers(8_000_000, 134_000_000))
def test_anchor_has_the_asked_size_and_fits_inside_the_ansnet(target):
    shape = solve_down(ANSNET, ANSNET.shape, target)
    assert abs(size(shape) - target) <= TOLERANCE * target
    assert refusals(shape, ANSNET) == []
    assert contains(ANSNET.shape, shape)


def near(shape: Shape, target: int) -> bool:
    return abs(size(shape) - target) <= TOLERANCE * target


def nested(larger: Shape, smaller: Shape) -> Iterator[Shape]:
    """Every legal shape between two neighbours."""
    for kv_heads in range(smaller.kv_heads, larger.kv_heads + 1):
        heads = 3 * kv_heads
        for hidden in range(smaller.hidden, larger.hidden + 1):
            if hidden % heads == 0:
                for layers in range(smaller.layers, larger.layers + 1):
                    for ffn in range(smaller.ffn, larger.ffn + 1):
                        yield Shape(layers, hidden, ffn, heads, kv_heads, larger.head_dim, larger.vocab)


@example(20_000_000, 0.96875, 0.5)
@example(27_299_610, 0.9375, 0.5)
@given(st.integers(20_000_000, 133_000_000), st.floats(0.45, 0.97), st.floats(0.1, 0.9))
def test_desnet_has_the_asked_size_and_nests_between_its_neighbours(first, ratio, share):
    larger = solve_down(ANSNET, ANSNET.shape, first)
    smaller = solve_down(ANSNET, larger, int(first * ratio))
    target = int(size(smaller) + share * (size(larger) - size(smaller)))
    try:
        shape = solve_between(ANSNET, larger, smaller, target)
    except NoShapeError:
        # Neighbours a single layer apart, say, leave nothing between them.
        assert not any(near(between, target) for between in nested(larger, smaller))
        return
    assert near(shape, target)
    assert contains(larger, shape)
    assert contains(shape, smaller)
    assert refusals(shape, ANSNET) == []


def test_depth_and_ffn_shrink_in_proportion_while_widths_stay():
    shape = solve_down(ANSNET, ANSNET.shape, 103_000_000)
    assert (shape.hidden, shape.heads, shape.kv_heads) == (576, 9, 3)
    assert abs(shape.layers / 30 - shape.ffn / 1536) < 0.05


def test_hidden_joins_below_half_of_depth_and_ffn():
    shape = solve_down(ANSNET, ANSNET.shape, 40_000_000)
    assert shape.hidden < 576


def test_size_that_no_shape_has_is_refused_with_the_nearest():
    with pytest.raises(NoShapeError, match="nearest possible"):
        solve_down(ANSNET, ANSNET.shape, 100_000)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"hidden": 577}, "not a multiple of heads"),
        ({"heads": 8}, "not a multiple of kv_heads"),
        ({"heads": 6, "hidden": 576}, "heads for 3 kv_heads"),
        ({"layers": 31}, "layers 31 is more than the AnsNet's 30"),
    ],
)
def test_illegal_shape_is_refused_with_its_reason(change, reason):
    from dataclasses import replace

    assert any(reason in found for found in refusals(replace(ANSNET.shape, **change), ANSNET))


def test_between_two_shapes_the_layers_of_the_line_are_rounded_up():
    larger = solve_down(ANSNET, ANSNET.shape, 102_600_000)
    smaller = solve_down(ANSNET, larger, 76_100_000)
    for target in range(78_000_000, 102_000_000, 1_500_000):
        found = solve_between(ANSNET, larger, smaller, target)
        assert near(found, target)
        assert contains(larger, found)
        assert contains(found, smaller)
        # The line is nearly straight in parameters too. Near the smaller end a deeper shape would be narrower than that.
        on_line = smaller.layers + 5 * (target - 76_100_000) / (102_600_000 - 76_100_000)
        if target > 86_000_000:
            assert on_line - 0.1 < found.layers < on_line + 1.1
    assert solve_between(ANSNET, larger, smaller, 92_662_500).layers == 23
