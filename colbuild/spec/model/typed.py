"""A choice by its type, with keys that belong to some types only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from pydantic import SerializerFunctionWrapHandler, ValidationInfo, field_validator, model_serializer, model_validator
from pydantic_core import PydanticCustomError

from colbuild.spec.model.fields import Model

PARTIAL: Final = "partial"
"""In a validation's context: what is read is merged with other files first, so what a `type` asks for is not known yet."""


def partial(info: ValidationInfo) -> bool:
    """Returns whether what is validated may not be all of it yet."""
    return bool(info.context and info.context.get(PARTIAL))


class Typed(Model):
    """A choice by its `type`, or by another key, where some keys mean something to some types only.

    Such a key is None for any other type, and then in no JSON value either: a key that a type does not use is in no action
    key, lock or saved plan of it.
    """

    _own: ClassVar[Mapping[str, tuple[float | str, tuple[str, ...]]]] = {}
    """Key -> its default, and the types that use it."""

    _chosen_by: ClassVar[str] = "type"
    """The key that holds the type; it comes before all keys that not every type uses."""

    @model_validator(mode="before")
    @classmethod
    def _with_own_defaults(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        chosen = data.get(cls._chosen_by, cls.model_fields[cls._chosen_by].default)
        absent = {key: value for key, (value, types) in cls._own.items() if chosen in types and data.get(key) is None}
        return data | absent

    @field_validator("*")
    @classmethod
    def _is_used(cls, value: Any, info: ValidationInfo) -> Any:
        _, types = cls._own.get(info.field_name or "", (None, None))
        chosen = info.data.get(cls._chosen_by)
        if types is not None and value is not None and chosen is not None and chosen not in types and not partial(info):
            raise PydanticCustomError(
                "unused",
                "'{key}' belongs to {types}, not to {chosen}",
                {
                    "key": info.field_name,
                    "types": " and ".join(types),
                    "chosen": chosen,
                    "hint": f"remove it; if a parent recipe sets it, write {info.field_name}: null",
                },
            )
        return value

    @model_serializer(mode="wrap")
    def _without_unused(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in dump(self).items() if value is not None or key not in self._own}
