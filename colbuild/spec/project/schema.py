"""JSON schemas of the user's files, for completion, help and checks in editors."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from pydantic import BaseModel

from colbuild.spec.model.written import FamilyFile, ProfileFile, RecipeFile

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

Schema = dict[str, Any]


def family_schema() -> Schema:
    """The schema of `specs/*.yaml`."""
    return schema_of(FamilyFile, "colbuild family")


def recipe_schema() -> Schema:
    """The schema of `recipes/*.yaml`."""
    return schema_of(RecipeFile, "colbuild recipe")


def profile_schema() -> Schema:
    """The schema of `exports/*.yaml`."""
    return schema_of(ProfileFile, "colbuild device profile")


SCHEMAS: Final[Mapping[str, Callable[[], Schema]]] = {
    "family": family_schema,
    "recipe": recipe_schema,
    "profile": profile_schema,
}
"""By what they describe; committed as docs/schema/<name>.v1.json."""


def schema_text(name: str) -> str:
    """One of `SCHEMAS` as the text of its file."""
    return json.dumps(SCHEMAS[name](), indent=2, ensure_ascii=False) + "\n"


def schema_of(model: type[BaseModel], title: str) -> Schema:
    """The schema of a form, with the title that editors show."""
    schema = _tidied(model.model_json_schema(by_alias=True, mode="validation"))
    return {"$schema": DIALECT, "title": title, **schema}


def _tidied(value: Any) -> Any:
    """Without titles derived from the keys, which editors would show for a description, and defaults of nothing."""
    if isinstance(value, Mapping):
        # Properties may themselves be called "title" or "default": only a text or null is what is meant here.
        noise = {"title": isinstance(value.get("title"), str), "default": value.get("default", ...) is None}
        return {key: _tidied(item) for key, item in value.items() if not noise.get(key, False)}
    return [_tidied(item) for item in value] if isinstance(value, list) else value
