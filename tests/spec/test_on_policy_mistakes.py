"""Mistakes in a recipe's on-policy settings."""

from __future__ import annotations

import pytest

from tests.spec.projects import RECIPE, family, load, problems


def test_all_that_excludes_text_of_the_students_own_is_told_at_once(tmp_path):
    text = RECIPE.replace("kd_weight: 0.5", "kd_weight: 0").replace("tokens: 1M", "teacher: cached")
    found = problems(tmp_path, recipes__distill=f"{text}sequence: 32\non_policy: {{prompt: 32}}\n")
    told = [problem.partition(": ")[2] for problem in found]
    assert any("the text that the student writes does not exist before the training = write" in one for one in told)
    assert any(
        "on text that the student writes the teacher's distribution is all there is to learn" in one for one in told
    )
    assert any(
        "'prompt' has 32 tokens, so in a 'sequence' of 32 the student has nothing to write" in one for one in told
    )


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("{prompt: chta}", "'prompt' must be chat or a number of tokens, not 'chta'"),
        ("{prompt: 0}", "'prompt' must be chat or a number of tokens, not 0"),
        ("{share: 1.5}", "'share' must be at most 1, not 1.5"),
        ("{every: 0}", "'every' must be more than 0, not 0"),
        ("{evry: 2}", "unknown key 'evry' in 'on_policy'"),
    ],
)
def test_a_mistake_in_text_of_the_students_own(tmp_path, written, says):
    (only,) = problems(tmp_path, recipes__distill=f"{RECIPE}on_policy: {written}\n")
    assert says in only


def test_a_recipe_declines_its_parents_own_text_with_null(tmp_path):
    recover = "extends: recipes/distill.yaml\non_policy: null\nteacher: cached\n"
    text = family("shape: {layers: 2}", "shape: {layers: 2}\n    recover: {recipe: recipes/recover.yaml}")
    own = f"{RECIPE}on_policy: {{every: 4}}\n"
    loaded = load(tmp_path, specs__family=text, recipes__distill=own, recipes__recover=recover).family
    assert loaded.desnets[1].recover is not None
    assert loaded.desnets[1].recover.on_policy is None
    assert loaded.anchors[0].recipe.on_policy is not None
    assert loaded.anchors[0].recipe.on_policy.every == 4
