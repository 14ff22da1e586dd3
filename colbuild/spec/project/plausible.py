"""Warnings for values that are legal but unusual: `lr: 1e9`, 12 training tokens.

A range includes all known uses, and somewhat more. Only written values are checked, not defaults.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from colbuild.spec.model.device import Device, Limits, Recovery, Static
from colbuild.spec.model.family import ChainRules, Family, Generate, Measured, Order, SizedByDevice, Start, Text
from colbuild.spec.model.mixing import Interpolate
from colbuild.spec.model.on_policy import OnPolicy
from colbuild.spec.model.recipe import Loss, Optimizer, Recipe, Schedule
from colbuild.spec.text.places import Path, Places
from colbuild.spec.text.problems import Problem
from colbuild.units import format_bytes, format_count


@dataclass(frozen=True)
class Range:
    """The usual range of a value.

    Attributes:
        least: A smaller one is hardly meant; 0 for any.
        most: A larger one is hardly meant.
        unit: How bounds are written: "" for plain numbers, "count" or "bytes".
    """

    least: float = 0.0
    most: float = math.inf
    unit: str = ""

    def holds(self, value: float) -> bool:
        """Returns whether a value is usual; none at all is."""
        return value == 0 or self.least <= value <= self.most

    def text(self, bound: float) -> str:
        """A bound as people write it."""
        if self.unit == "bytes":
            return format_bytes(round(bound))
        return format_count(round(bound)) if self.unit == "count" else f"{bound:g}"


_TRAINED: Final = Range(1_000, 1e13, "count")
_READ: Final = Range(100, 1e9, "count")
_LENGTH: Final = Range(8, 2**20)
_PACKAGE: Final = Range(100_000, 1e13, "bytes")
_SHARE_OF_LOSS: Final = Range(most=100)
_RATE: Final = Range(1e-8, 0.1)

USUAL: Final[Mapping[tuple[type[BaseModel], str], Range]] = {
    (Recipe, "tokens"): _TRAINED,
    (Recipe, "sequence"): _LENGTH,
    (Recipe, "batch"): Range(most=65_536),
    (Recipe, "micro_batch"): Range(most=4_096),
    (Recipe, "checkpoint_every"): Range(1, 86_400),
    (Recipe, "evaluate_every"): Range(0.001),
    (Loss, "temperature"): Range(0.05, 20),
    (Loss, "kd_weight"): _SHARE_OF_LOSS,
    (Loss, "ce_weight"): _SHARE_OF_LOSS,
    (Loss, "hidden_weight"): _SHARE_OF_LOSS,
    (Optimizer, "lr"): _RATE,
    (Optimizer, "eps"): Range(1e-20, 1e-3),
    (Optimizer, "weight_decay"): Range(most=1),
    (Optimizer, "clip"): Range(1e-3, 1e3),
    (Optimizer, "betas"): Range(0.1),
    (Schedule, "warmup"): Range(most=0.5),
    (OnPolicy, "every"): Range(most=4_096),
    (OnPolicy, "prompt"): Range(2, 8_192),
    (Text, "limit"): Range(10_000, 1e15, "bytes"),
    (Text, "heldout"): Range(most=0.5),
    (Generate, "tokens"): _TRAINED,
    (Generate, "length"): _LENGTH,
    (Generate, "temperature"): Range(0.05, 5),
    (Measured, "tokens"): _READ,
    (Order, "tokens"): _READ,
    (Start, "tokens"): _READ,
    (Interpolate, "tokens"): _READ,
    (ChainRules, "max_gap"): Range(1.05, 20),
    (SizedByDevice, "max_package"): _PACKAGE,
    (Device, "calibration"): _READ,
    (Device, "context"): _LENGTH,
    (Device, "threads"): Range(most=256),
    (Device, "bandwidth"): Range(1e7, 1e14, "bytes"),
    (Static, "sequence"): Range(most=4_096),
    (Limits, "max_package"): _PACKAGE,
    (Limits, "max_memory"): Range(1_000_000, 1e13, "bytes"),
    (Limits, "max_perplexity_increase"): Range(1e-4, 10),
    (Limits, "min_decode_tps"): Range(0.01, 1e5),
    (Recovery, "tokens"): _TRAINED,
    (Recovery, "sequence"): _LENGTH,
    (Recovery, "batch"): Range(most=65_536),
    (Recovery, "lr"): _RATE,
}
"""The numbers of a family whose bounds the models leave wide."""


def unlikely(family: Family, places: Places) -> list[Problem]:
    """Every value that somebody wrote and hardly meant, each at its place.

    Args:
        family: The resolved family.
        places: Where its values were written.
    """
    found = []
    for path, model, key, value in _written(family, ()):
        usual = next((USUAL[kind, key] for kind in type(model).__mro__ if (kind, key) in USUAL), None)
        for number in value if isinstance(value, tuple) else (value,):
            if usual is None or isinstance(number, bool) or not isinstance(number, int | float) or usual.holds(number):
                continue
            place = places.nearest((*path, key))
            told = usual.text(number) if usual.unit else f"{number:g}"
            bound = (
                f"at least {usual.text(usual.least)}" if number < usual.least else f"at most {usual.text(usual.most)}"
            )
            found.append(Problem(place, f"'{key}' is {told}, which is unusual: the usual range is {bound}"))
    found += _large_steps(family, places)
    return list(dict.fromkeys(found))


def _large_steps(family: Family, places: Places) -> Iterator[Problem]:
    """Trainings of which a single step reads more tokens than they shall have."""
    for path, recipe, key, _ in _written(family, ()):
        if key not in ("tokens", "batch", "sequence") or not isinstance(recipe, Recipe):
            continue
        step = recipe.batch * recipe.sequence
        if step > recipe.tokens:
            sizes = f"a step of {recipe.batch:,} x {recipe.sequence:,} tokens has {format_count(step)}"
            told = f"{sizes}, more than the {format_count(recipe.tokens)} of 'tokens'"
            hint = "a training has one step at least; write a smaller batch"
            yield Problem(places.nearest((*path, "batch")), told, hint)


def _written(model: BaseModel, path: Path) -> Iterator[tuple[Path, BaseModel, str, Any]]:
    """Every value that was given, at any depth: (path of its model, the model, its key, the value)."""
    for key in type(model).model_fields:
        if key not in model.model_fields_set:
            continue
        value = getattr(model, key)
        yield path, model, key, value
        if isinstance(value, BaseModel):
            yield from _written(value, (*path, key))
        elif isinstance(value, tuple):
            for index, item in enumerate(value):
                if isinstance(item, BaseModel):
                    yield from _written(item, (*path, key, index))
