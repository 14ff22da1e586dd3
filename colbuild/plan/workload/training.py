"""The work of a training by a recipe: optimiser steps, tokens, FLOPs; and the recipe's values in a step's key.

::

    order ansnet ─┬─> teach ansnet ─┬─> distill a100           teacher: cached
                  └─────────────────┘

A value that means nothing to a step is not in its parameters, and so in no key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from colbuild.arch import Shape, Structure, forward_flops
from colbuild.plan.shapes.route import distillation_flops
from colbuild.plan.workload.at_once import MICRO_TOKENS
from colbuild.plan.workload.model_memory import training_memory
from colbuild.spec.model.decides import deciding, own_params, steering
from colbuild.spec.model.recipe import Elastic, Recipe


def steps_of(recipe: Recipe) -> int:
    """Returns the number of optimiser steps for a recipe's tokens: at least one."""
    return max(1, round(recipe.tokens / (recipe.batch * recipe.sequence)))


def trained_tokens(recipe: Recipe) -> int:
    """Tokens that a recipe really trains on: whole optimiser steps."""
    return steps_of(recipe) * recipe.batch * recipe.sequence


def tokens_at_once(recipe: Recipe) -> int:
    """Tokens that pass through the models of a training at once."""
    if recipe.micro_batch != "auto":
        return min(recipe.micro_batch, recipe.batch) * recipe.sequence
    return max(recipe.sequence, min(MICRO_TOKENS, recipe.batch * recipe.sequence))


def steered(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """A recipe as it is in a key, with the settings that steer its run."""
    # The settings are a validated recipe's own values, as JSON has them.
    return recipe.model_copy(
        update={key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
    )


_WRITING: Final = 2.0
"""How much longer a FLOP of writing takes than one of training, as tokens come one after the other: 1.9 times for 64 texts at
once, 2.6 for 32; a student of 101M parameters on one core of a Xeon with AMX."""


def written_flops(recipe: Recipe, student: Structure) -> int:
    """FLOPs of the text that a student writes for its own training; its prompts are read once, too."""
    if recipe.on_policy is None:
        return 0
    return round(recipe.on_policy.share * trained_tokens(recipe)) * forward_flops(student, recipe.sequence)


def training_work(
    recipe: Recipe, student: Structure, teacher: Structure, interval: Shape | None = None
) -> tuple[int, int, int]:
    """(FLOPs of a training, bytes of memory at its peak, FLOPs that its slower part would have in its time besides).

    Args:
        recipe: How it trains; `teacher: cached` says that the teacher is not computed.
        student: The model that it makes.
        teacher: The model that it follows.
        interval: For `elastic: {form: anchor}`, the smallest shape that is trained.
    """
    trained, smallest = trained_ends(recipe, student, teacher, interval)
    above = 0 if recipe.teacher == "cached" else forward_flops(teacher, recipe.sequence)
    high, low = (forward_flops(model, recipe.sequence) for model in (trained, smallest))
    below = low if recipe.elastic is None else recipe.elastic.mean(high, low)
    writing = written_flops(recipe, trained)
    flops = distillation_flops(trained_tokens(recipe), above, below) + writing
    memory = training_memory(trained, smallest, teacher, recipe, tokens_at_once(recipe))
    return flops, memory, round((_WRITING - 1.0) * writing)


def trained_ends(
    recipe: Recipe, student: Structure, teacher: Structure, interval: Shape | None
) -> tuple[Structure, Structure]:
    """The largest and the smallest shape that a training passes tokens through; the same where it is not elastic."""
    if recipe.elastic is None:
        return student, student
    if recipe.elastic.form == "segment":
        return student.at(teacher.shape), student
    assert interval is not None
    return student, student.at(interval)


# -- what a key holds -------------------------------------------------------------------------------------------------


def recipe_params(recipe: Recipe, elastic: Elastic | None = None) -> dict[str, Any]:
    """The values of a recipe that decide a training, as JSON.

    The lessons decide what `teacher: cached` writes down; they are an input of their own.

    Args:
        recipe: How it trains.
        elastic: How it trains sub-shapes too, if it does.
    """
    values = bridge_recipe_params(recipe, across=False)
    return values if elastic is None else {**values, "elastic": deciding(elastic)}


def bridge_recipe_params(recipe: Recipe, *, across: bool) -> dict[str, Any]:
    """The same for the bridge, which trains no sub-shapes; how vocabularies are compared counts between two of them only."""
    values = own_params(recipe)
    if across:
        values["loss"]["across"] = recipe.loss.across or "alm"
    return values


def recipe_settings(recipe: Recipe) -> dict[str, Any]:
    """The values of a recipe that steer a training, as JSON values; durations in seconds."""
    values = {name: getattr(recipe, name) for name in steering(Recipe)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def lessons_params(recipe: Recipe, split: str) -> dict[str, Any]:
    """The parameters of the lessons that a training by this recipe reads: nothing of how it learns from them."""
    return {
        "split": split,
        "seed": recipe.seed,
        "sequence": recipe.sequence,
        "windows": trained_tokens(recipe) // recipe.sequence,
        "documents": recipe.documents,
        "precision": recipe.precision,
        "temperature": recipe.loss.temperature,
        "type": recipe.teacher_cache.type,
    }
