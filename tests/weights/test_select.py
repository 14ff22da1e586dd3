"""Choosing entries along named axes."""

from __future__ import annotations

import torch

from colbuild.weights.select import select


def test_a_product_axis_follows_its_heads():
    tensor = torch.arange(6 * 2).reshape(6, 2)  # three heads of two
    found = select(tensor, ("heads*head_dim", "hidden"), {"heads": torch.tensor([2, 0])}, head_dim=2)
    assert found[:, 0].tolist() == [8, 10, 0, 2]


def test_axes_without_a_selection_are_kept_whole():
    tensor = torch.randn(3, 4)
    assert select(tensor, ("vocab", "hidden"), {"ffn": torch.tensor([0])}, head_dim=1) is tensor


def test_several_axes_are_selected_at_once():
    tensor = torch.arange(12).reshape(3, 4)
    found = select(tensor, ("ffn", "hidden"), {"ffn": torch.tensor([2]), "hidden": torch.tensor([3, 1])}, head_dim=1)
    assert found.tolist() == [[11, 9]]
