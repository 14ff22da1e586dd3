"""The building blocks of the spec's models: counts, sizes, durations, names, sources, and the base model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)
from pydantic.annotated_handlers import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

from colbuild.spec.sources.choice import check_glob
from colbuild.spec.sources.grammar import check_data_source, check_source
from colbuild.spec.sources.schemes import beginnings_pattern
from colbuild.units import (
    BYTES_PATTERN,
    COUNT_PATTERN,
    DURATION_PATTERN,
    duration_text,
    parse_bytes,
    parse_count,
    parse_duration,
)

NAME_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


UNION: Final = "?"
"""What the tags of a union begin with; pydantic names them in the places of mistakes, where they are no key."""


@dataclass(frozen=True)
class RowOf:
    """Marks a text that names a row of a table, as a `Literal` of the names would, or is another word; rows may be added."""

    table: Mapping[str, object]
    other: str | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Accepts the names of the rows."""
        return core_schema.no_info_plain_validator_function(self._named)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Lists the names of the rows."""
        return {"enum": self._names(), "type": "string"}

    def _names(self) -> list[str]:
        return [*([] if self.other is None else [self.other]), *self.table]

    def _named(self, value: object) -> object:
        if isinstance(value, str) and value in self._names():
            return value
        *most, last = map(repr, self._names())
        raise PydanticKnownError("literal_error", {"expected": f"{', '.join(most)} or {last}" if most else last})


def _with_unit(pattern: str, noun: str, examples: list[int | str]) -> WithJsonSchema:
    text = {"type": "string", "pattern": pattern}
    return WithJsonSchema(
        {"anyOf": [{"type": "integer", "exclusiveMinimum": 0}, text], "description": noun, "examples": examples}
    )


Count = Annotated[
    int,
    BeforeValidator(parse_count),
    Field(gt=0),
    _with_unit(COUNT_PATTERN, "A count: 4096, 20k, 100M or 1.5B.", ["100M", "20k", 4096]),
]
"""A number of parameters or tokens: 100M, 20k, 1.5B, 4096."""

Size = Annotated[
    int,
    BeforeValidator(parse_bytes),
    Field(gt=0),
    _with_unit(BYTES_PATTERN, "A number of bytes: 40MB, 40MiB, 512kB or 4096.", ["40MB", "40MiB"]),
]
"""A number of bytes: 40MB, 40MiB, 512kB."""

Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    Field(gt=0.0),
    PlainSerializer(duration_text, when_used="json"),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": DURATION_PATTERN,
            "description": "A duration: 30s, 5min, 2h or 1h30min.",
            "examples": ["5min", "30s", "1h30min"],
        }
    ),
]
"""Seconds, written as 30s, 5min, 2h or 1h30min; a text again in JSON."""

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN, max_length=64)]
"""A name that is also a folder's name, so never a path."""

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""A sha256 in lower-case hex."""


@dataclass(frozen=True)
class SourceText:
    """Gives a text the JSON schema of a source.

    Attributes:
        other: A regular expression of what else the text may be.
        rest: A regular expression of what follows a source's beginning.
    """

    other: str | None = None
    rest: str = "."

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """The beginnings of all schemes."""
        others = () if self.other is None else (self.other,)
        return {"type": "string", "pattern": beginnings_pattern(*others) + self.rest}


Source = Annotated[str, AfterValidator(check_source), SourceText()]
"""Where something comes from, in one of `colbuild.spec.sources.schemes.SCHEMES`."""

DataSource = Annotated[str, AfterValidator(check_data_source), SourceText()]
"""Where text comes from: as `Source`."""


def _as_list(value: object) -> object:
    return (value,) if isinstance(value, str) else value


Globs = Annotated[
    tuple[Annotated[str, AfterValidator(check_glob)], ...],
    BeforeValidator(_as_list),
    Field(min_length=1),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "minLength": 1},
                {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1},
            ],
            "examples": ["train-*", ["data/train-*", "extra/*.jsonl"]],
        }
    ),
]
"""Names of files with * and ?: one, or a list."""

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Beta = Annotated[float, Field(ge=0.0, lt=1.0)]
Length = Annotated[int, Field(gt=0, lt=2**31)]
"""The length of an axis."""

Split = Annotated[
    Literal["train", "heldout", "all"], Field(description="The part of the documents to read; see 'heldout'.")
]


class Model(BaseModel):
    """A frozen value that refuses keys it does not know, and values of another type than its own."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
