"""What a training step is told: of its recipe what decides the result, the lessons it reads, the shapes it trains besides.

::

    order ansnet ─┬─> teach ansnet ─┬─> distill a100           teacher: cached
                  └─────────────────┘

A value that means nothing to a step is not in its parameters, and so in no key.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from colbuild.plan.cost.work import trained_tokens
from colbuild.plan.shapes.chain import Chain
from colbuild.plan.shapes.members import Member, Placed
from colbuild.spec.model.decides import deciding, own_params, steering
from colbuild.spec.model.recipe import Elastic, Recipe


def recipe_params(recipe: Recipe, elastic: Elastic | None = None) -> dict[str, Any]:
    """The values of a recipe that decide a training, as JSON.

    What `teacher: cached` writes down is decided by the lessons, which are an input of their own.

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


def settings(recipe: Recipe) -> dict[str, Any]:
    """What steers a training, as JSON values; durations in seconds."""
    values = {name: getattr(recipe, name) for name in steering(Recipe)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def lessons_params(recipe: Recipe, split: str) -> dict[str, Any]:
    """What decides the lessons that a training by this recipe reads: nothing of how it learns from them."""
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


def elastic_of(chain: Chain, anchor: str, recipe: Recipe) -> Elastic | None:
    """How an anchor trains sub-shapes too; None where its recipe asks for none, or no DesNet would be made of them.

    ::

        form: anchor     a100 with its sub-shapes down to a76     if a DesNet lies between a100 and a76
        form: segment    a76 with all between a100 and a76        the same

    The AnsNet is not trained, so that with `anchor` no sub-shapes of it are.
    """
    asked = recipe.elastic
    if asked is None:
        return None

    def is_used(placed: Placed) -> bool:
        if asked.form == "segment":
            return placed.mixed and placed.smaller is not None and placed.smaller.name == anchor
        return placed.smaller is not None and placed.larger.name == anchor

    return asked if any(map(is_used, chain.desnets)) else None


def lower_end(chain: Chain, anchor: str) -> Member:
    """The next anchor on the route, down to which the anchor's sub-shapes are trained.

    If there is none, as no DesNet needs one: the next anchor below those DesNets, for its shape.
    """
    onward = (step.student for step in chain.route if step.teacher.name == anchor)
    below = (placed.smaller for placed in chain.desnets if placed.larger.name == anchor and placed.smaller is not None)
    return (*onward, *below)[0]


def distill_params(chain: Chain, index: int, split: str) -> dict[str, Any]:
    """The parameters of distilling an anchor of the chain, given by its position among the anchors."""
    member, recipe = chain.anchors[index], chain.recipes[index]
    elastic = elastic_of(chain, member.name, recipe)
    params = {
        "shape": asdict(member.structure.shape),
        "recipe": recipe_params(recipe, elastic),
        "split": split,
    }
    if elastic is not None and elastic.form == "anchor":
        params["interval"] = asdict(lower_end(chain, member.name).structure.shape)
    return params
