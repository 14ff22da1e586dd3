"""What the benchmark of long trained anchors computes from losses and weights."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from tests.benchmarks.regime import bars_of, dent, line, rows_of
from tests.benchmarks.regime_chain import SUBSET, Effort, apart

LOSSES = (3.0, 2.9, 2.7, 2.6, 2.0)


def chain():
    """Anchors of 1M and 3M parameters, of 3 and 2 nats, and three sizes between, the first of them off the middle."""

    def loss(size, method="group_alpha"):
        return LOSSES[size] + (0.1 if method == SUBSET and 0 < size < 4 else 0.0)

    return SimpleNamespace(
        sizes=(1_000_000, 1_400_000, 2_000_000, 2_500_000, 3_000_000),
        loss=loss,
        tokens=1_000,
        form="anchor",
        methods=(SUBSET, "global_alpha"),
        effort=Effort(between=3, all_methods=(2,)),
        distances=lambda: {"all": (0.2, 0.1)},
        lab=SimpleNamespace(name="stories"),
    )


def test_the_line_and_dents_are_by_parameters():
    assert line(chain(), 1) == pytest.approx(2.8)
    assert dent(chain(), 1) == pytest.approx(2.9 - (3.0 * 0.6 + 2.7 * 0.4))
    assert dent(chain(), 2) < 0.0 < dent(chain(), 3)


def test_each_quantity_has_a_row_and_each_size_a_column():
    rows = {row["what"]: row for row in rows_of(chain())}
    assert [*rows] == ["loss", "above the line", "below the subset", "dent", SUBSET, "global_alpha"]
    assert [rows["loss"][f"{size:.2f}M"] for size in (1.0, 1.4, 2.0, 2.5, 3.0)] == list(LOSSES)
    assert rows["above the line"]["1.00M"] is None
    assert rows["below the subset"]["2.00M"] == pytest.approx(0.1)
    assert [rows["global_alpha"][f"{size:.2f}M"] for size in (1.4, 2.0, 2.5)] == [None, 2.7, None]
    assert "all 0.200 (0.100)" in rows["loss"]["weights"]


def test_bars_are_of_the_worst_size():
    above, below, deepest = bars_of(chain())
    assert (above.value, above.holds) == (pytest.approx(0.35), False)
    assert (below.value, below.holds) == (pytest.approx(0.1), True)
    assert not deepest.holds


def test_weights_apart_are_shares_of_the_ansnets():
    def weights(*values):
        names = ("model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight")
        return SimpleNamespace(tensors={name: torch.tensor([value]) for name, value in zip(names, values, strict=True)})

    found = apart(weights(2.0, 4.0), weights(3.0, 4.0), weights(3.0, 2.0))
    assert found["embedding"] == (0.0, 0.5)
    assert found["attention"] == (0.5, 0.0)
    assert found["all"] == (pytest.approx((4 / 20) ** 0.5), pytest.approx((1 / 20) ** 0.5))
