"""The files as written: the keys of a family, a recipe and a device profile.

They differ from the resolved forms (`colbuild.spec.model.family`) where a file refers to another (`recipe:`, `exports:`,
`extends:`) or leaves to a default what the resolved form must have. Everything else is inherited from there.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, ConfigDict, Field, ValidatorFunctionWrapHandler, WithJsonSchema, WrapValidator
from pydantic_core import PydanticCustomError

from colbuild.spec.model.bridge import BridgeForm
from colbuild.spec.model.device import DeviceProfile
from colbuild.spec.model.family import (
    Ancestor,
    Begin,
    ChainRules,
    Data,
    Generate,
    Measured,
    Order,
    ShapeRequest,
    Sized,
    SizedByDevice,
    Start,
    either_size,
)
from colbuild.spec.model.fields import Count, DataSource, Model, Name
from colbuild.spec.model.mixing import Interpolate
from colbuild.spec.model.recipe import Recipe


def check_recipe_path(text: str) -> str:
    """The path itself, if it can name a recipe: a YAML file inside the project.

    Raises:
        ValueError: It cannot; the text after "; " says what to write.
    """
    parts = text.split("/")
    if text.startswith(("/", "~")) or ".." in parts or "\\" in text or ":" in text:
        raise ValueError(
            f"'{text}' is not a path inside the project; paths start at the project's root, as in recipes/distill.yaml"
        )
    if not text.endswith((".yaml", ".yml")):
        raise ValueError(f"'{text}' is not a YAML file; write the whole path, as in recipes/distill.yaml")
    return text


RecipePath = Annotated[
    str,
    AfterValidator(check_recipe_path),
    WithJsonSchema({"type": "string", "pattern": r"^[^/~\\:][^\\:]*\.ya?ml$"}),
]
"""A recipe's path, from the project's root."""

Exports = Annotated[tuple[Name, ...], Field(description="Device profiles to package it for, each a file in exports/.")]


def _without_defaults(schema: dict[str, Any]) -> None:
    """Takes away built-in defaults where a recipe is consulted first: an editor would show them as what holds."""
    for key, value in schema["properties"].items():
        if key in Recipe.model_fields:
            value.pop("default", None)


class RecipeFile(Recipe):
    """A recipe of colbuild: how to distill an anchor or to recover a DesNet. Omitted keys have defaults."""

    extends: Annotated[RecipePath | None, Field(description="Another recipe; the values here override its values.")] = (
        None
    )


class ProfileFile(DeviceProfile):
    """A device profile of colbuild: the format and limits of packages for a device. The file's name is the profile's name."""


class Training(Recipe):
    """A recipe by its path, and values that are merged over it."""

    model_config = ConfigDict(json_schema_extra=_without_defaults)

    recipe: Annotated[
        RecipePath | None, Field(description="The recipe, from the project's root: recipes/distill.yaml.")
    ] = None


class WrittenAnsNet(Ancestor):
    """The pretrained ancestor; with `exports` it is packaged too, to compare with."""

    exports: Exports = ()


class WrittenEval(Measured):
    """The text to measure on; without a `source` it is that of `train`, of which the held-out part is used."""

    source: Annotated[
        DataSource | None,
        Field(description="Another text than train's; without it, omitted keys are train's."),
    ] = None
    generate: Annotated[
        Generate | None, Field(description="Another text than train's, written by the AnsNet, instead of a 'source'.")
    ] = None


class WrittenData(Model):
    """The corpus to train and calibrate on, and the one to measure on."""

    train: Annotated[Data, Field(description="The text to train and calibrate on.")]
    eval: Annotated[
        WrittenEval | None, Field(description="The text to measure on; by default train's held-out part.")
    ] = None
    begin: Begin = None


def _anchor_schema(schema: dict[str, Any]) -> None:
    _without_defaults(schema)
    either_size(schema)


class WrittenAnchor(Training, Sized):
    """One link of the learngene chain; recipe values may stand here, for this anchor alone."""

    model_config = ConfigDict(json_schema_extra=_anchor_schema)

    init: Annotated[
        Start | None, Field(description="A checkpoint to start from, instead of the teacher's nested subset.")
    ] = None


class WrittenBridge(Training, BridgeForm):
    """Anchor zero, of another architecture or vocabulary than the AnsNet; recipe values may stand here, for it alone."""

    model_config = ConfigDict(json_schema_extra=_without_defaults)

    params: Annotated[
        Count | None, Field(description="The number of stored parameters; by default the AnsNet's size.")
    ] = None
    shape: Annotated[
        ShapeRequest | None,
        Field(description="Its shape, instead of 'params'; omitted axes are the AnsNet's."),
    ] = None


AUTO: Final = "auto"
"""Written in the place of a list of anchors: colbuild places them itself."""


def _anchors_or_auto(value: object, check: ValidatorFunctionWrapHandler) -> tuple[WrittenAnchor, ...]:
    """The anchors; none of them is written where colbuild places them itself."""
    if value == AUTO:
        return ()
    if isinstance(value, str):
        raise PydanticCustomError(
            "anchors",
            "'anchors' must be a list, or auto, not '{value}'",
            {"value": value[:60], "hint": "write anchors: auto, and colbuild places them"},
        )
    anchors: tuple[WrittenAnchor, ...] = check(value)
    return anchors


def _anchors_schema(schema: dict[str, Any]) -> None:
    description = schema.pop("description")
    every = dict(schema)
    schema.clear()
    schema.update(anyOf=[{"const": AUTO}, every], description=description)


class WrittenChain(Training, ChainRules):
    """The learngene chain, from the largest anchor to the smallest; recipe values here hold for all of them."""

    bridge: Annotated[
        WrittenBridge | None,
        Field(description="Anchor zero, for a family of another architecture or vocabulary than the AnsNet."),
    ] = None

    anchors: Annotated[
        tuple[WrittenAnchor, ...],
        Field(
            min_length=1,
            description="From large to small; each is distilled from a larger one, see 'route'. Or auto: colbuild places them.",
            json_schema_extra=_anchors_schema,
        ),
        WrapValidator(_anchors_or_auto),
    ]


class WrittenDesNet(SizedByDevice):
    """A model to deliver, of any size between two neighbours of the chain."""

    interpolate: Annotated[Interpolate | None, Field(description="How it is made of the two anchors around it.")] = None
    recover: Annotated[
        Training | None, Field(description="A short training afterwards; null for none, even if 'defaults' has one.")
    ] = None
    exports: Exports | None = None


class Defaults(Recipe):
    """Default values for anchors and DesNets; every recipe overrides the recipe values here."""

    model_config = ConfigDict(json_schema_extra=_without_defaults)

    interpolate: Annotated[Interpolate | None, Field(description="For every DesNet.")] = None
    recover: Annotated[Training | None, Field(description="For every DesNet.")] = None
    exports: Annotated[Exports | None, Field(description="For every DesNet that has no 'exports' of its own.")] = None


class FamilyFile(Model):
    """A family of colbuild: one pretrained model, a chain of anchors distilled from it, and the models to deliver."""

    api_version: Annotated[
        Literal["colbuild/v1"], Field(alias="apiVersion", description="The version of this file's format.")
    ]
    name: Annotated[Name, Field(description="The family's name, also the name of its folder in out/.")]
    ansnet: Annotated[WrittenAnsNet, Field(description="The pretrained ancestor.")]
    data: Annotated[WrittenData, Field(description="The text to train and to measure on.")]
    order: Annotated[Order, Field(description="How the AnsNet's parts are ranked by importance.")] = Order()
    chain: Annotated[WrittenChain, Field(description="The anchors, and how they are distilled.")]
    desnets: Annotated[tuple[WrittenDesNet, ...], Field(min_length=1, description="The models to deliver.")]
    defaults: Annotated[Defaults | None, Field(description="Default values for anchors and DesNets.")] = None
