"""How much there is to do in a step: its arithmetic, the bytes it handles and leaves, and the memory it needs.

Everything here follows from shapes and parameters alone. It models the operations in `colbuild/ops`, which the planner must
not import; what of them cannot be known beforehand is left None, never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from colbuild.arch import ARCHITECTURES, Shape, Structure, forward_flops, parameters, structure_from_json
from colbuild.plan.package_size import package_bytes, tokenizer_bound
from colbuild.plan.route import distillation_flops
from colbuild.spec.device import Profile
from colbuild.spec.recipe import Recipe

WINDOW: Final = 512
"""Tokens that models are measured and calibrated on at once."""

CANDIDATES: Final[Mapping[str, int]] = {"group_alpha": 40, "global_alpha": 10, "layer_alpha": 46, "nested": 23}
"""How many mixtures each way of interpolating scores, at most; a step down the slopes of layer_alpha counts three times."""

NESTED_CANDIDATES: Final[Mapping[str, int]] = {"group_alpha": 22, "global_alpha": 4, "layer_alpha": 4, "nested": 0}
"""How many more there are where a nested student lies beside the smaller anchor."""

FILLED_CANDIDATES: Final = 5
"""How many global_alpha scores where what the smaller anchor lacks is not the larger one's."""

REFIT_TEXT: Final = 4
"""How many times the calibration tokens a refit reads: three parts to fit on, one to decide whether it is kept."""

GENERATED_AT_ONCE: Final = 64
"""Texts that are written at once; more are faster, and need memory for their keys and values."""

_WORD: Final = 5
"""Bytes of a token in a text."""

LESSON: Final = 64
"""Bytes in which what a teacher says of a token is kept, at most."""

_STORED = 2
"""Bytes of a stored weight; most models are published in 16 bits."""

_COMPUTED: Final[Mapping[str, int]] = {"bf16": 2, "fp32": 4}
"""Bytes of a number that is computed with."""

_FITTING: Final = 3
"""How many times as long an export takes whose rounding is fitted; from one run of each (`tests.benchmarks.packages`)."""
_EXPORTED: Final = 12
"""Bytes that an export holds of each parameter at its peak: the PyTorch model and the package's session, or the model and
what its matrices saw."""

_PROCESS = 500_000_000
"""What a process that has loaded the libraries holds before it does anything."""

MICRO_TOKENS: Final = 2048
"""Tokens that pass through teacher and student at once on a CPU, where more are no faster and only take memory."""
_CHUNK = 256  # tokens whose logits exist at once
_MATRIX_NORMS = 4  # copies of the residual stream that a block keeps for the backward pass


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
        return structure_from_json(params["structure"], ARCHITECTURES)
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
    alone: bool = False,
    nested: bool = False,
) -> Work | None:
    """What a step does; None if a model that it works on is not known.

    Args:
        op: The operation.
        params: Its parameters.
        inputs: Role -> structure of the model that plays it.
        made: The model that it makes.
        alone: Whether an evaluation compares the AnsNet with itself, and so computes it once.
        nested: Whether an interpolation finds a nested student beside the smaller anchor.
    """
    try:
        return _work(op, params, inputs, made, alone, nested)
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
    alone: bool,
    nested: bool,
) -> Work | None:
    if op == "corpus":
        limit = params["limit"]
        # Some four bytes of text make a token of four bytes at most.
        return Work(None, limit, limit, _PROCESS)
    if op == "tokenizer":
        limit = params.get("limit") if "train" in params else 1
        return Work(None, limit, tokenizer_bound(params["rows"]), _PROCESS)
    if op == "generate":
        model, tokens = inputs["model"], params["tokens"]
        memory = _forward_memory([model]) + _cache(model, params["length"])
        return Work(tokens * forward_flops(model, params["length"]), None, _WORD * tokens, memory)
    if op == "evaluate":
        models = [inputs["model"]] if alone else [inputs["model"], inputs["reference"]]
        flops = params["tokens"] * sum(forward_flops(model, WINDOW) for model in models)
        return Work(flops, None, 1000, _forward_memory(models))
    if op == "export":
        count = parameters(inputs["model"])
        # Text to fit to is read only where the rounding is fitted.
        times = _FITTING if "split" in params else 1
        memory = _PROCESS + _EXPORTED * count
        return Work(None, 4 * count * times, _package_size(inputs["model"], params["profile"]), memory)
    if op == "quantise":
        return _quantising(params, inputs["model"])
    if op == "teach":
        tokens, teacher = params["windows"] * params["sequence"], inputs["teacher"]
        memory = _teaching_memory(teacher, params["sequence"], params["precision"])
        return Work(tokens * forward_flops(teacher, params["sequence"]), None, LESSON * tokens, memory)
    if made is None:
        return None
    count = parameters(made)
    disk = _STORED * count
    if op == "source":
        return Work(None, disk, disk, _PROCESS + (4 + _STORED) * count)
    if op == "order":
        return Work(params["tokens"] * forward_flops(made, WINDOW), None, disk, _forward_memory([made]) + disk)
    if op == "align":
        models = [inputs["teacher"], made]
        flops = params["tokens"] * sum(forward_flops(model, WINDOW) for model in models)
        return Work(flops, None, disk, _forward_memory(models) + disk)
    if op == "interpolate":
        if "tokens" not in params:
            # A mixture that is given is written some rows at a time.
            return Work(None, disk, disk, _PROCESS)
        flops = _interpolation_flops(params, made, inputs["larger"], nested)
        roles = ("larger", *(("smaller",) if "smaller" in inputs else ()), *(("larger",) if nested else ()))
        ends = sum(parameters(inputs[role]) for role in roles)
        # The mixture is computed in fp32 beside both ends; a nested student is as large as the larger one.
        return Work(flops, None, disk, _forward_memory([made]) + _STORED * ends + 4 * count)
    recipe, teacher = recipe_of(params), inputs["teacher"]
    if params["recipe"]["loss"].get("across") == "seqkd":
        # What the teacher has to say, it has written.
        recipe = recipe.model_copy(update={"teacher": "cached"})
    trained, smallest = _trained(params, recipe, made, teacher)
    above = 0 if recipe.teacher == "cached" else forward_flops(teacher, recipe.sequence)
    high, low = (forward_flops(model, recipe.sequence) for model in (trained, smallest))
    below = low if recipe.elastic is None else recipe.elastic.mean(high, low)
    flops = distillation_flops(trained_tokens(recipe), above, below)
    if is_segment(op, params):
        disk += _STORED * parameters(trained)
    tokens = _at_once(recipe)
    return Work(flops, None, disk, training_memory(trained, teacher, recipe, tokens))


def _quantising(params: Mapping[str, Any], model: Structure) -> Work:
    """A model that is calibrated, forward and back, and whose scales are trained; codes take a byte each."""
    recipe, count = recipe_of(params), parameters(model)
    forward = forward_flops(model, recipe.sequence)
    flops = distillation_flops(trained_tokens(recipe), forward, forward)
    flops += 3 * params["profile"]["calibration"] * forward_flops(model, WINDOW)
    # No weight has a master, a gradient and averages, but a code and what it computes as in fp32.
    memory = training_memory(model, model, recipe, _at_once(recipe)) - (4 + 4 + 8) * count + (1 + 4) * count
    return Work(flops, None, count, memory)


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


def _forward_memory(models: list[Structure]) -> int:
    """Models that only run forward: weights as stored and as computed with, one block's activations, a chunk of logits."""
    weights = sum(2 * _STORED * parameters(model) for model in models)
    largest = max(models, key=parameters)
    return _PROCESS + weights + 4 * WINDOW * _block_floats(largest) + _logits(largest) * len(models)


def training_memory(student: Structure, teacher: Structure, recipe: Recipe, tokens: int) -> int:
    """Bytes of a student that is trained beside its teacher, or by lessons, with so many tokens at once.

    Of each student weight: as stored, as computed with, the fp32 master, its gradient, and Adam's two averages.
    """
    computed = _COMPUTED[recipe.precision]
    online = recipe.teacher == "online"
    weights = parameters(student) * (_STORED + computed + 4 + 4 + 8)
    weights += parameters(teacher) * (_STORED + (computed if online else 0))
    activations = tokens * _block_floats(student) * student.shape.layers * computed
    # Logits of student and teacher in fp32, and the gradient of the student's.
    return _PROCESS + weights + activations + (3 if online else 2) * _logits(student)


def _at_once(recipe: Recipe) -> int:
    """Tokens that pass through the models of a training at once."""
    return max(recipe.sequence, min(MICRO_TOKENS, recipe.batch * recipe.sequence))


def _teaching_memory(teacher: Structure, sequence: int, precision: str) -> int:
    """A teacher that only runs forward: its weights as stored and as computed with, one block's activations, logits twice."""
    weights = parameters(teacher) * (_STORED + _COMPUTED[precision])
    tokens = max(sequence, MICRO_TOKENS)
    return _PROCESS + weights + _COMPUTED[precision] * tokens * _block_floats(teacher) + 2 * _logits(teacher)


def _block_floats(model: Structure) -> int:
    """Numbers that a block keeps for each token: residual stream and norms, queries, keys, values, the feed-forward part."""
    shape = model.shape
    attention = shape.head_dim * (2 * shape.heads + 2 * shape.kv_heads)
    return _MATRIX_NORMS * shape.hidden + attention + 4 * shape.ffn


def _cache(model: Structure, length: int) -> int:
    """Keys and values of the texts that are written at once."""
    shape = model.shape
    return 4 * GENERATED_AT_ONCE * length * 2 * shape.layers * shape.kv_heads * shape.head_dim


def _logits(model: Structure) -> int:
    return 4 * _CHUNK * model.shape.vocab
