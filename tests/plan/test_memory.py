"""The memory of steps: what makes it more or less. `tests.benchmarks.memory` compares it with measurements."""

from __future__ import annotations

from dataclasses import replace

import pytest

from colbuild.arch import parameters, read_structure
from colbuild.plan.workload.model_memory import PROCESSES, quantise_memory, training_memory
from colbuild.spec.model.recipe import Recipe
from tests.helpers.configs import SMOLLM2
from tests.helpers.steps import work_of
from tests.plan.families import ANSNET

VALUES = {"sequence": 256, "batch": 8, "tokens": 64_000, "embeddings": "train"}
ELASTIC = {"form": "anchor", "share": 0.4}


def trained(student=ANSNET, above=ANSNET, tokens=2048, **values):
    return training_memory(student, student, above, Recipe.model_validate({**VALUES, **values}), tokens)


def wide(model) -> int:
    """A chunk's logits in fp32."""
    return 4 * 256 * model.shape.vocab


def test_training_holds_weights_masters_gradients_and_moments():
    assert trained(tokens=0) - PROCESSES > 24 * parameters(ANSNET)


def test_a_large_vocabulary_is_counted_with_every_copy_of_a_chunk_and_the_gradient_of_the_head():
    larger = ANSNET.at(replace(ANSNET.shape, vocab=262_144))
    more = larger.shape.vocab - ANSNET.shape.vocab
    logits, head = 4.5 * 4 * 256 * more, 8 * more * larger.shape.hidden
    # The embedding is the head: it is trained, and the teacher has one too.
    weights = (20 + 4) * more * larger.shape.hidden
    assert trained(larger, larger) - trained() == pytest.approx(1.2 * (logits + head) + weights, rel=0.01)


def test_less_at_once_needs_less():
    assert trained(tokens=256) < trained(tokens=1024) < trained(tokens=2048)
    assert trained(gradient_checkpointing="always") < trained()
    assert trained(sequence=128) < trained()


def test_what_a_recipe_says_of_memory_reaches_the_plan():
    params = {"recipe": Recipe.model_validate(VALUES).model_dump(mode="json"), "split": "train"}
    inputs = {"teacher": ANSNET, "start": ANSNET}

    def needed(**settings):
        return work_of("recover", params, inputs, ANSNET, settings=settings).memory

    assert needed(micro_batch=1) < needed(micro_batch=4) < needed()
    assert needed(micro_batch=99) == needed(), "no more than a batch"
    assert needed(gradient_checkpointing="always") < needed()


def test_lessons_need_less_than_a_teacher_that_computes():
    assert trained(teacher="cached") < trained()


def test_other_losses_need_no_less():
    kinds = ("reverse_kl", "jsd", "skew_kl", "skew_rkl")
    assert all(trained(loss={"type": kind}) >= trained() for kind in kinds)
    assert trained(loss={"temperature": 2.0}) > trained()


def test_weights_of_32_bits_take_twice_as_much():
    config = {**SMOLLM2, "dtype": "float32"}
    twice = read_structure(config)
    assert twice == ANSNET, "it is the same model"
    assert trained(twice, twice) - trained() == 4 * parameters(ANSNET)
    assert work_of("source", {}, {}, twice).disk == 4 * parameters(ANSNET)


def test_a_comparison_holds_both_models_and_one_more_chunk():
    params, inputs = {"tokens": 10, "split": "heldout"}, {"model": ANSNET, "reference": ANSNET}
    alone, both = (work_of("evaluate", params, inputs, alone=one).memory for one in (True, False))
    assert both > alone
    assert both - PROCESSES > 4 * parameters(ANSNET) + 3.5 * wide(ANSNET)


def test_training_scales_needs_less_than_training_weights():
    recipe = Recipe.model_validate(VALUES)
    assert quantise_memory(ANSNET, recipe, 1024) < training_memory(ANSNET, ANSNET, ANSNET, recipe, 1024)


def test_passes_of_an_elastic_step_come_one_after_the_other():
    assert trained(tokens=0) < trained(elastic=ELASTIC) < trained()


def test_an_embedding_that_is_kept_has_no_master_no_gradient_and_no_moments():
    embedding = ANSNET.shape.vocab * ANSNET.shape.hidden
    head = 1.2 * (4 + 2 * 2) * embedding
    assert trained() - trained(embeddings="keep") == pytest.approx(16 * embedding + head, rel=0.01)
