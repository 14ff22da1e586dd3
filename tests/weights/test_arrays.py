"""Arithmetic on weights in numpy, against torch's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from colbuild.weights.files.arrays import all_finite, as_array, mix_in, multiply, rescale, type_of

TYPES = [torch.float32, torch.float16, torch.bfloat16]


def numbers(dtype, seed):
    """All magnitudes, zeros and both signs among them."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(64, 80, generator=generator) * 10.0 ** torch.randint(-6, 3, (64, 80), generator=generator)
    values[0, :4] = torch.tensor([0.0, -0.0, 1.0, -1.0])
    return values.to(dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("share", [0.0, 0.25, 0.3, 0.5, 0.7, 1.0])
def test_mixing_is_torchs_up_to_the_last_bit(dtype, share):
    ours, theirs = numbers(dtype, 0), numbers(dtype, 1)
    expected = ours.clone().lerp_(theirs, share)
    mix_in(as_array(ours), as_array(theirs), share)
    # torch may fuse a product and a sum; what was rounded once more differs in float32's last bit.
    torch.testing.assert_close(ours, expected, rtol=2 * torch.finfo(dtype).eps, atol=1e-6)
    if dtype is not torch.float32:
        assert (ours == expected).float().mean() > 0.99


@pytest.mark.parametrize("dtype", TYPES)
def test_the_ends_of_a_mixture_are_its_models(dtype):
    theirs = numbers(dtype, 1)
    for share, end in ((0.0, numbers(dtype, 0)), (1.0, theirs)):
        ours = numbers(dtype, 0)
        mix_in(as_array(ours), as_array(theirs), share)
        assert torch.equal(ours, end)


@pytest.mark.parametrize("dtype", TYPES)
def test_multiples_are_torchs(dtype):
    ours = numbers(dtype, 2)
    expected = ours * 0.7
    multiply(as_array(ours)[:, :40], 0.7)
    assert torch.equal(ours[:, :40], expected[:, :40])
    assert torch.equal(ours[:, 40:], numbers(dtype, 2)[:, 40:])
    expected = ((ours.double() + 1.0) * 0.9 - 1.0).to(dtype)
    rescale(as_array(ours), 0.9, 1.0)
    assert torch.equal(ours, expected)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_one_entry_that_is_no_number_is_seen(dtype, value):
    ours = numbers(dtype, 3)
    assert all_finite(as_array(ours))
    ours[5, 7] = float(value)
    assert not all_finite(as_array(ours))
    assert not all_finite(as_array(ours)[:, 4:9])
    # Nor is it lost in a mixture.
    mix_in(as_array(ours), as_array(numbers(dtype, 4)), 0.5)
    assert not all_finite(as_array(ours))


def test_sums_round_to_even_and_overflow_to_infinity():
    ours, theirs = torch.tensor([1.0, 1.0078125, 3e38]).bfloat16(), torch.tensor([1.0078125, 1.015625, 3e38]).bfloat16()
    mix_in(as_array(ours), as_array(theirs), 0.5)
    assert ours.tolist()[:2] == [1.0, 1.015625]
    multiply(as_array(ours), 4.0)
    assert ours[2].isinf()


def test_types_have_the_names_of_files():
    assert [type_of(torch.empty(0, dtype=dtype)).itemsize for dtype in TYPES] == [4, 2, 2]
    assert type_of(torch.empty(0, dtype=torch.uint8)) == np.uint8
