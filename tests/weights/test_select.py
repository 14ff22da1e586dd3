"""Choosing entries along named axes."""

from __future__ import annotations

import torch

from colbuild.weights.prefix.selection import select


def test_a_product_axis_follows_its_heads():
    tensor = torch.arange(6 * 2).reshape(6, 2)  # three heads of two
    found = select(
        tensor, ("heads*head_dim", "hidden"), {"heads": torch.tensor([2, 0])}, {"heads": 3, "head_dim": 2, "hidden": 2}
    )
    assert found[:, 0].tolist() == [8, 10, 0, 2]


def test_axes_without_a_selection_are_kept_whole():
    tensor = torch.randn(3, 4)
    assert select(tensor, ("vocab", "hidden"), {"ffn": torch.tensor([0])}, {"vocab": 3, "hidden": 4}) is tensor


def test_several_axes_are_selected_at_once():
    tensor = torch.arange(12).reshape(3, 4)
    found = select(
        tensor, ("ffn", "hidden"), {"ffn": torch.tensor([2]), "hidden": torch.tensor([3, 1])}, {"ffn": 3, "hidden": 4}
    )
    assert found.tolist() == [[11, 9]]


def test_fused_projections_are_chosen_from_head_by_head_however_they_lie():
    lengths = {"heads": 2, "head_dim": 2, "hidden": 1}
    rows = torch.arange(12).reshape(12, 1)
    keep = {"heads": torch.tensor([1])}
    one_after_the_other = select(rows, ("3*heads*head_dim", "hidden"), keep, lengths)
    together = select(rows, ("heads*3*head_dim", "hidden"), keep, lengths)
    assert one_after_the_other[:, 0].tolist() == [2, 3, 6, 7, 10, 11]
    assert together[:, 0].tolist() == [6, 7, 8, 9, 10, 11]
