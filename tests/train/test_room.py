"""Memory that is used again: the same values to the last bit, and nothing new for another chunk."""

from __future__ import annotations

import pytest
import torch

from colbuild.train.losses.logits_buffer import Room


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_values_are_those_of_new_memory_to_the_last_bit(dtype):
    generator, room = torch.Generator().manual_seed(3), Room()
    for rows in (7, 7, 3):
        left, right = (torch.randn(shape, generator=generator).to(dtype) for shape in ((rows, 16), (16, 101)))
        logits = left @ right
        assert torch.equal(room.product("logits", left, right), logits)
        wide = room.cast("wide", logits, torch.float32)
        assert torch.equal(wide, logits.float())
        likely = room.log_softmax("likely", wide)
        assert torch.equal(likely, logits.float().log_softmax(dim=-1))
        assert torch.equal(room.exp("wide", likely), logits.float().log_softmax(dim=-1).exp())


def test_another_chunk_takes_the_memory_of_the_one_before():
    room = Room()
    first = room.product("logits", torch.ones(5, 2), torch.ones(2, 9)).data_ptr()
    assert room.product("logits", torch.zeros(3, 2), torch.ones(2, 9)).data_ptr() == first
    assert room.product("others", torch.ones(5, 2), torch.ones(2, 9)).data_ptr() != first


def test_what_needs_no_cast_is_not_copied():
    tensor = torch.ones(2, 3)
    assert Room().cast("wide", tensor, torch.float32) is tensor
