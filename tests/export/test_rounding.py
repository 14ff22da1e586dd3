"""Rounding to blocks: never beyond half a step, and better where what is multiplied is known."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from colbuild.export.rounding.block_rounding import inputs_of, round_blocks
from colbuild.export.rounding.quantised_graph import packed


def matrix(rows: int, columns: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def moments_of(columns: int, seed: int) -> torch.Tensor:
    """Inputs that go together, as activations do."""
    mixed = matrix(400, columns, seed) @ matrix(columns, columns, seed + 1)
    return mixed.T @ mixed / 400


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 7), st.integers(1, 150), st.sampled_from([16, 32, 64]), st.integers(0, 99), st.floats(0.01, 50.0))
def test_8_bits_are_off_by_half_a_step_at_most(rows: int, columns: int, block: int, seed: int, size: float):
    weight = matrix(rows, columns, seed) * size
    found = round_blocks(weight, 8, block)
    assert found.values().shape == weight.shape
    steps = found.scales.repeat_interleave(block, dim=1)[:, :columns]
    assert ((found.values() - weight).abs() <= 0.5001 * steps).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 7), st.integers(1, 150), st.sampled_from([16, 32, 64]), st.integers(0, 99), st.booleans())
def test_4_bits_stay_in_range_and_near(rows: int, columns: int, block: int, seed: int, fitted: bool):
    weight = matrix(rows, columns, seed)
    found = round_blocks(weight, 4, block, inputs_of(moments_of(columns, seed)) if fitted else None)
    assert int(found.codes.max()) <= 15
    assert found.zeros is not None
    assert int(found.zeros.max()) <= 15
    error = (found.values() - weight).square().mean()
    assert error < 0.05 * max(weight.square().mean(), torch.tensor(1e-3)) or fitted


def test_a_matrix_of_zeros_stays_one():
    for bits in (4, 8):
        assert not round_blocks(torch.zeros(3, 40), bits, 32).values().any()


@pytest.mark.parametrize("seed", range(4))
def test_what_is_multiplied_decides_and_errors_are_made_up_for(seed: int):
    weight, moments = matrix(40, 96, seed), moments_of(96, seed + 50)

    def harm(values: torch.Tensor) -> float:
        error = values - weight
        return float((error @ moments * error).sum())

    plain, fitted = round_blocks(weight, 4, 32), round_blocks(weight, 4, 32, inputs_of(moments))
    assert harm(fitted.values()) < 0.6 * harm(plain.values())


def test_it_is_the_same_every_time():
    weight, moments = matrix(20, 70, 1), moments_of(70, 2)
    one, other = (round_blocks(weight, 4, 32, inputs_of(moments)) for _ in range(2))
    assert torch.equal(one.codes, other.codes)
    assert torch.equal(one.scales, other.scales)


@given(st.lists(st.integers(0, 15), min_size=1, max_size=9))
def test_two_codes_share_a_byte_the_first_one_low(codes: list[int]):
    made = packed(torch.tensor([codes], dtype=torch.uint8), 4)[0]
    back = [half for byte in made.tolist() for half in (byte & 15, byte >> 4)]
    assert back[: len(codes)] == codes
    assert len(made) == (len(codes) + 1) // 2
