"""Marks the fields of a model that decide a result.

A field says so itself, in its annotation: a field of the same name in another model says nothing about it. An unmarked field
decides a result, so that a new field enters keys unless its author says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

from pydantic.fields import FieldInfo

from colbuild.spec.model.fields import Model


class Mark(Enum):
    """Marks fields that differ from others, which decide a result and enter a step's parameters unchanged."""

    STEERS = "steers"
    """Steers a run and changes nothing in its result: in no key, lock or saved plan."""
    APART = "apart"
    """Decides a result by way of a step, a shape or a parameter of its own: in locks and saved plans, and not repeated in
    the parameters that a step takes from the model."""


def deciding(model: Model) -> dict[str, Any]:
    """The JSON values of a model that decide a result, as locks and saved plans hold them: all but what steers."""
    return _values(model, lambda field: Mark.STEERS not in field.metadata)


def own_params(model: Model) -> dict[str, Any]:
    """The JSON values of a model that a step takes as parameters: all that bear no mark."""
    return _values(model, lambda field: not any(isinstance(mark, Mark) for mark in field.metadata))


def steering(model: type[Model]) -> tuple[str, ...]:
    """Names of a model's own fields that steer a run, sorted."""
    return tuple(sorted(name for name, field in model.model_fields.items() if Mark.STEERS in field.metadata))


def _values(model: Model, kept: Callable[[FieldInfo], bool]) -> dict[str, Any]:
    values: dict[str, Any] = _kept(model, model.model_dump(mode="json"), kept)
    return values


def _kept(value: Any, dumped: Any, kept: Callable[[FieldInfo], bool]) -> Any:
    """As much of a dumped value as is kept, read beside the value itself, which knows its fields."""
    if isinstance(value, Model):
        fields = type(value).model_fields
        return {key: _kept(getattr(value, key), inner, kept) for key, inner in dumped.items() if kept(fields[key])}
    if isinstance(value, tuple):
        return [_kept(item, inner, kept) for item, inner in zip(value, dumped, strict=True)]
    return dumped
