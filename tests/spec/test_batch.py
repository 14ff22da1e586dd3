"""`batch: auto` follows from the tokens of a training, wherever these are written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colbuild.spec.model.batch_size import sequences_for
from colbuild.spec.model.recipe import Recipe
from tests.spec.projects import load, problems

COUNTS = st.integers(1_000, 10**12)


@pytest.mark.parametrize(
    ("tokens", "sequence", "batch"),
    [(64_000, 256, 4), (1_000_000, 256, 16), (20_000_000, 512, 32), (10**9, 1_024, 128), (1_000, 2_048, 1)],
)
def test_the_batch_of_a_budget(tokens, sequence, batch):
    assert Recipe(tokens=tokens, sequence=sequence).batch == batch


@given(COUNTS, st.integers(8, 8_192))
def test_sixteen_times_the_tokens_are_read_in_steps_of_four_times_the_size(tokens, sequence):
    few, many = (sequences_for(count, sequence) for count in (tokens, 16 * tokens))
    assert few & (few - 1) == 0
    assert many == 4 * few or few == 1


def test_the_tokens_that_hold_in_the_end_decide(tmp_path):
    loaded = load(tmp_path, recipes__distill="tokens: 1B\nsequence: 256\nbatch: auto\n")
    assert [anchor.recipe.batch for anchor in loaded.family.anchors] == [
        sequences_for(anchor.recipe.tokens, 256) for anchor in loaded.family.anchors
    ]
    assert loaded.family.anchors[0].recipe.tokens == 50_000


def test_a_resolved_recipe_holds_a_number():
    resolved = Recipe(tokens=64_000, sequence=256).model_dump(mode="json")
    assert resolved["batch"] == 4
    assert Recipe.model_validate({**resolved, "tokens": 10**9}, strict=False).batch == 4


@pytest.mark.parametrize("written", ["0", "automatic", "true", "1.5"])
def test_anything_else_is_a_mistake_with_its_place(tmp_path, written):
    (problem,) = problems(tmp_path, recipes__distill=f"batch: {written}\n")
    assert problem.startswith("recipes/distill.yaml:1:8: 'batch' must be auto or a number of sequences, not"), problem
