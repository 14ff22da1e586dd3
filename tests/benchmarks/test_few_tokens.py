"""The ways that `few_tokens` compares are recipes, and its bars are of the best one."""

from __future__ import annotations

from pathlib import Path

import pytest

from colbuild.spec.model.recipe import Recipe
from tests.benchmarks import few_tokens
from tests.benchmarks.few_tokens import FORMER, TOGETHER, WAYS, Setting, measure


@pytest.mark.parametrize("name", WAYS)
def test_every_way_is_a_recipe(name):
    recipe = Recipe.model_validate(WAYS[name].recipe, strict=False)
    assert recipe.loss.kd_weight + recipe.loss.ce_weight == pytest.approx(1.0)


def test_bars_compare_the_best_way_with_the_former_default(monkeypatch):
    losses = {FORMER: [4.6, 3.65], TOGETHER: [4.49, 3.5]}

    class Kept:
        def __init__(self, setting):
            pass

        def score(self, name, seed):
            return {"loss": [loss + seed for loss in losses[name]], "seconds": 100.0}

    monkeypatch.setattr(few_tokens, "Bench", Kept)
    found = measure(Setting(Path(), 64_000, 2, (FORMER, TOGETHER)))
    assert [(round(bar.value, 3), bar.holds) for bar in found.bars] == [(0.15, True), (0.11, False)]
    assert [row["102.6M"] for row in found.rows] == [4.15, 4.0]
