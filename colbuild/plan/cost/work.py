"""How much there is to do in a step: its arithmetic, the bytes it handles and leaves, and the memory it needs.

Everything here follows from shapes and parameters alone. It models the operations in `colbuild/ops`, which the planner must
not import; what of them cannot be known beforehand is left None, never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from colbuild.arch import ARCHITECTURES, Shape, Structure, forward_flops, parameters, structure_from_json
from colbuild.plan.cost.step_memory import (
    MICRO_TOKENS,
    WINDOW,
    align_memory,
    corpus_memory,
    evaluate_memory,
    export_memory,
    generate_memory,
    interpolate_memory,
    mixed_memory,
    order_memory,
    quantise_memory,
    source_memory,
    teach_memory,
    tokenizer_memory,
    training_memory,
)
from colbuild.plan.shapes.package_size import package_bytes, tokenizer_bound
from colbuild.plan.shapes.route import distillation_flops
from colbuild.spec.model.device import Profile
from colbuild.spec.model.recipe import Recipe

CANDIDATES: Final[Mapping[str, int]] = {"group_alpha": 40, "global_alpha": 10, "layer_alpha": 46, "nested": 23}
"""How many mixtures each way of interpolating scores, at most; a step down the slopes of layer_alpha counts three times."""

NESTED_CANDIDATES: Final[Mapping[str, int]] = {"group_alpha": 22, "global_alpha": 4, "layer_alpha": 4, "nested": 0}
"""How many more there are where a nested student lies beside the smaller anchor."""

FILLED_CANDIDATES: Final = 5
"""How many global_alpha scores where what the smaller anchor lacks is not the larger one's."""

REFIT_TEXT: Final = 4
"""How many times the calibration tokens a refit reads: three parts to fit on, one to decide whether it is kept."""

NOTHING: Final[Mapping[str, Any]] = {}

_WORD: Final = 5
"""Bytes of a token in a text."""

LESSON: Final = 64
"""Bytes in which what a teacher says of a token is kept, at most."""

_FORWARD: Final = 2
"""Bytes of a number that models compute with that are not trained."""

_FITTING: Final = 3
"""How many times as long an export takes whose rounding is fitted; from one run of each (`tests.benchmarks.packages`)."""


@dataclass(frozen=True)
class Work:
    """What a step does, as far as it is known beforehand.

    Attributes:
        flops: Floating point operations; None if the step's time does not go by them, or they are unknown.
        bytes: Bytes that it reads or converts, for steps whose time goes by these; None as above.
        disk: Bytes of its result; None if only its source could tell.
        memory: Bytes that it needs at its peak.
    """

    flops: int | None
    bytes: int | None
    disk: int | None
    memory: int

    @property
    def amount(self) -> int | None:
        """What the step's time is proportional to."""
        return self.flops if self.flops is not None else self.bytes


def made_structure(
    op: str, params: Mapping[str, Any], inputs: Mapping[str, Structure], like: Structure
) -> Structure | None:
    """The structure of the model that a step makes; None if it makes none, or if what it starts from is not known.

    Args:
        op: The operation.
        params: Its parameters.
        inputs: Role -> structure of the model that plays it.
        like: A model of the family's architecture.
    """
    if op == "bridge":
        found = structure_from_json(params["structure"], ARCHITECTURES)
        return replace(found, stored=inputs["teacher"].stored) if "teacher" in inputs else found
    if op in ("align", "distill", "interpolate"):
        return like.at(Shape(**params["shape"]))
    return inputs.get({"order": "model", "recover": "start"}.get(op, ""))


def is_segment(op: str, params: Mapping[str, Any]) -> bool:
    """Whether a step is a distillation that keeps a nested student beside the anchor that it makes."""
    elastic = params["recipe"].get("elastic") if op == "distill" else None
    return elastic is not None and elastic["form"] == "segment"


def work_of(
    op: str,
    params: Mapping[str, Any],
    inputs: Mapping[str, Structure],
    made: Structure | None,
    *,
    settings: Mapping[str, Any] = NOTHING,
    source: str = "",
    alone: bool = False,
    nested: bool = False,
) -> Work | None:
    """What a step does; None if a model that it works on is not known.

    Args:
        op: The operation.
        params: Its parameters.
        inputs: Role -> structure of the model that plays it.
        made: The model that it makes.
        settings: What steers it and is no parameter.
        source: Where what it reads comes from, if that is outside.
        alone: Whether an evaluation compares the AnsNet with itself, and so computes it once.
        nested: Whether an interpolation finds a nested student beside the smaller anchor.
    """
    try:
        return _work(op, params, inputs, made, settings, source, alone, nested)
    except KeyError:
        return None


def steps_of(recipe: Recipe) -> int:
    """How many optimiser steps a recipe's tokens make: at least one."""
    return max(1, round(recipe.tokens / (recipe.batch * recipe.sequence)))


def trained_tokens(recipe: Recipe) -> int:
    """Tokens that a recipe really trains on: whole optimiser steps."""
    return steps_of(recipe) * recipe.batch * recipe.sequence


def recipe_of(params: Mapping[str, Any]) -> Recipe:
    """The recipe in a step's parameters, which are JSON values."""
    return Recipe.model_validate(params["recipe"], strict=False)


def _work(
    op: str,
    params: Mapping[str, Any],
    inputs: Mapping[str, Structure],
    made: Structure | None,
    settings: Mapping[str, Any],
    source: str,
    alone: bool,
    nested: bool,
) -> Work | None:
    if op == "corpus":
        limit = params["limit"]
        # Some four bytes of text make a token of four bytes at most.
        rows = inputs["tokenizer"].shape.vocab if "tokenizer" in inputs else 0
        return Work(None, limit, limit, corpus_memory(params["format"], rows))
    if op == "tokenizer":
        limit = params.get("limit") if "train" in params else 1
        rows = inputs["model"].shape.vocab if "model" in inputs else 0
        return Work(None, limit, tokenizer_bound(params["rows"]), tokenizer_memory(params.get("format", ""), rows))
    if op == "generate":
        model, tokens = inputs["model"], params["tokens"]
        memory = generate_memory(model, params["length"], _FORWARD)
        return Work(tokens * forward_flops(model, params["length"]), None, _WORD * tokens, memory)
    if op == "evaluate":
        models = [inputs["model"]] if alone else [inputs["model"], inputs["reference"]]
        flops = params["tokens"] * sum(forward_flops(model, WINDOW) for model in models)
        return Work(flops, None, 1000, evaluate_memory(models, _FORWARD))
    if op == "export":
        model = inputs["model"]
        # Text to fit to is read only where the rounding is fitted.
        times = _FITTING if "split" in params else 1
        size = _package_size(model, params["profile"])
        profile = params["profile"]
        memory = export_memory(model, profile["precision"], profile["context"])
        return Work(None, 4 * parameters(model) * times, size, memory)
    if op == "quantise":
        return _quantising(params, inputs["model"], settings)
    if op == "teach":
        tokens, teacher = params["windows"] * params["sequence"], inputs["teacher"]
        memory = teach_memory(teacher, params)
        return Work(tokens * forward_flops(teacher, params["sequence"]), None, LESSON * tokens, memory)
    if made is None:
        return None
    count = parameters(made)
    disk = made.stored * count
    if op == "source":
        return Work(None, disk, disk, source_memory(made, coded=source.endswith(".gguf")))
    if op == "order":
        return Work(params["tokens"] * forward_flops(made, WINDOW), None, disk, order_memory(made, _FORWARD))
    if op == "align":
        models = [inputs["teacher"], made]
        flops = params["tokens"] * sum(forward_flops(model, WINDOW) for model in models)
        return Work(flops, None, disk, align_memory(made, inputs["teacher"], params["tokens"], _FORWARD))
    if op == "interpolate":
        if "tokens" not in params:
            # A mixture that is given is written some rows at a time.
            return Work(None, disk, disk, mixed_memory())
        flops = _interpolation_flops(params, made, inputs["larger"], nested)
        roles = ("larger", *(("smaller",) if "smaller" in inputs else ()), *(("larger",) if nested else ()))
        # A nested student is as large as the larger end.
        return Work(flops, None, disk, interpolate_memory(made, [inputs[role] for role in roles], _FORWARD))
    recipe, teacher = _steered(params, settings), inputs["teacher"]
    if params["recipe"]["loss"].get("across") == "seqkd":
        # What the teacher has to say, it has written.
        recipe = recipe.model_copy(update={"teacher": "cached"})
    trained, smallest = _trained(params, recipe, made, teacher)
    above = 0 if recipe.teacher == "cached" else forward_flops(teacher, recipe.sequence)
    high, low = (forward_flops(model, recipe.sequence) for model in (trained, smallest))
    below = low if recipe.elastic is None else recipe.elastic.mean(high, low)
    flops = distillation_flops(trained_tokens(recipe), above, below)
    if is_segment(op, params):
        disk += trained.stored * parameters(trained)
    tokens = _at_once(recipe)
    return Work(flops, None, disk, training_memory(trained, smallest, teacher, recipe, tokens))


def _steered(params: Mapping[str, Any], settings: Mapping[str, Any]) -> Recipe:
    """A step's recipe with what steers it and is in no key."""
    return recipe_of(params).model_copy(update=dict(settings))


def _quantising(params: Mapping[str, Any], model: Structure, settings: Mapping[str, Any]) -> Work:
    """A model that is calibrated, forward and back, and whose scales are trained; codes take a byte each."""
    recipe, count = _steered(params, settings), parameters(model)
    forward = forward_flops(model, recipe.sequence)
    flops = distillation_flops(trained_tokens(recipe), forward, forward)
    flops += 3 * params["profile"]["calibration"] * forward_flops(model, WINDOW)
    return Work(flops, None, count, quantise_memory(model, recipe, _at_once(recipe)))


def _interpolation_flops(params: Mapping[str, Any], made: Structure, larger: Structure, nested: bool) -> int:
    """Every candidate reads the text once; a refit reads more of it, with the larger anchor's FFNs beside its own."""
    forward = forward_flops(made, WINDOW)
    tokens: int = params["tokens"]
    flops = _candidates(params, nested) * tokens * forward
    if params.get("refit") == "auto":
        flops += REFIT_TEXT * tokens * (forward + forward_flops(larger, WINDOW))
    return flops


def _candidates(params: Mapping[str, Any], nested: bool) -> int:
    """How many mixtures are scored, at most."""
    method = params["method"]
    if params.get("alpha", "auto") != "auto" or method not in CANDIDATES:
        return 0
    if params.get("fill", "donor") != "donor":
        return FILLED_CANDIDATES
    return CANDIDATES[method] + (NESTED_CANDIDATES[method] if nested else 0)


def _trained(
    params: Mapping[str, Any], recipe: Recipe, made: Structure, teacher: Structure
) -> tuple[Structure, Structure]:
    """The largest and the smallest shape that a training passes tokens through; the same where it is not elastic."""
    if recipe.elastic is None:
        return made, made
    if recipe.elastic.form == "segment":
        return made.at(teacher.shape), made
    return made, made.at(Shape(**params["interval"]))


def _package_size(model: Structure, profile: Mapping[str, Any]) -> int:
    # The name decides nothing, and is therefore no parameter of the step.
    return package_bytes(model, Profile.model_validate({**profile, "name": "any"}, strict=False))


def _at_once(recipe: Recipe) -> int:
    """Tokens that pass through the models of a training at once."""
    if recipe.micro_batch != "auto":
        return min(recipe.micro_batch, recipe.batch) * recipe.sequence
    return max(recipe.sequence, min(MICRO_TOKENS, recipe.batch * recipe.sequence))
