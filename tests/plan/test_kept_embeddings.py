"""Which trainings keep the embedding and the head as they are."""

from __future__ import annotations

from dataclasses import replace

import pytest

from colbuild.plan.workload.kept_embeddings import FEW, embeddings, keeps_embeddings
from colbuild.spec.model.recipe import Recipe
from tests.plan.families import ANSNET

SMALLER = ANSNET.at(replace(ANSNET.shape, layers=20, ffn=1024))
NARROWER = ANSNET.at(replace(ANSNET.shape, layers=20, hidden=384, heads=6, kv_heads=2))
OTHER = ANSNET.at(replace(ANSNET.shape, vocab=16_384))


@pytest.mark.parametrize(
    ("tokens", "student", "smallest", "teacher", "kept"),
    [
        (FEW, SMALLER, SMALLER, ANSNET, True),
        (FEW + 1, SMALLER, SMALLER, ANSNET, False),
        (FEW, NARROWER, NARROWER, ANSNET, False),
        (FEW, SMALLER, NARROWER, ANSNET, False),
        (FEW, OTHER, OTHER, ANSNET, False),
    ],
    ids=["few tokens", "many tokens", "a narrower student", "a narrower sub-shape", "another vocabulary"],
)
def test_auto_keeps_what_a_student_has_whole_from_its_teacher(tokens, student, smallest, teacher, kept):
    recipe = Recipe(tokens=tokens)
    assert keeps_embeddings(recipe, student, smallest, teacher) is kept
    for word, expected in (("keep", True), ("train", False)):
        said = recipe.model_copy(update={"embeddings": word})
        assert keeps_embeddings(said, student, smallest, teacher) is expected


def test_a_tied_embedding_is_one_tensor():
    assert [tensor.name for tensor in embeddings(ANSNET)] == ["model.embed_tokens.weight"]
    untied = replace(ANSNET, flags=frozenset({(name, False) for name, _ in ANSNET.flags}))
    assert {tensor.name for tensor in embeddings(untied)} == {"model.embed_tokens.weight", "lm_head.weight"}
