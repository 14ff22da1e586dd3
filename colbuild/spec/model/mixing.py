"""The interpolation of a DesNet in a spec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from colbuild.spec.model.fields import Count
from colbuild.spec.model.typed import Typed

_SEARCHED: Final = ("group_alpha", "layer_alpha", "nested")
"""Methods that always score mixtures on text."""

_LARGER_ALONE: Final = ("subset", "random", "uniform")
"""Methods that take all of the larger anchor, and nothing of the smaller one."""


def _alpha(value: object) -> object:
    """A share, "auto" or "distance"; as one check, since of several that fail none would say what is meant."""
    if value in ("auto", "distance"):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value)
    raise PydanticCustomError(
        "alpha",
        "'alpha' must be auto, distance or a number from 0 to 1, not {value}",
        {"value": repr(value)[:60], "hint": "0 is all of the larger anchor, 1 all of the smaller one"},
    )


class Interpolate(Typed):
    """The interpolation of a DesNet from the two anchors around it; mixtures are scored on `tokens` calibration tokens."""

    _own: ClassVar[Mapping[str, tuple[float | str, tuple[str, ...]]]] = {
        "fill": ("donor", ("global_alpha", "expand")),
        "alpha": ("auto", ("global_alpha",)),
        "seed": (0, ("random",)),
    }
    _chosen_by: ClassVar[str] = "method"

    method: Annotated[
        Literal[
            "group_alpha",
            "global_alpha",
            "layer_alpha",
            "nested",
            "patch",
            "subset",
            "expand",
            "random",
            "uniform",
        ],
        Field(
            description="How the DesNet is made: 'group_alpha' finds a share of the smaller anchor for each group of tensors, "
            "'global_alpha' one for all, 'layer_alpha' one for each layer by gradient; 'nested' takes the prefix of an elastic "
            "step's student, alone or mixed with the larger anchor. 'patch' puts the larger anchor's layers into the smaller "
            "one, 'subset' is the larger one alone, 'expand' the smaller one alone. 'random' and 'uniform' are baselines: "
            "parts of the larger anchor, at random or evenly spaced."
        ),
    ] = "group_alpha"
    tokens: Annotated[
        Count, Field(description="Calibration tokens for scoring mixtures, of documents that are held out of training.")
    ] = 4096
    fill: Annotated[
        Literal["donor", "zero", "copy"] | None,
        Field(
            description="For global_alpha and expand: what takes the place of what the smaller anchor lacks. 'donor' (by "
            "default) takes it from the larger anchor, 'zero' leaves it empty as Chain-of-Learngene does, 'copy' copies what "
            "the smaller one has."
        ),
    ] = None
    alpha: Annotated[
        Literal["auto", "distance"] | float | None,
        PlainValidator(lambda value: None if value is None else _alpha(value)),
        WithJsonSchema(
            {
                "anyOf": [
                    {"enum": ["auto", "distance"]},
                    {"type": "number", "minimum": 0, "maximum": 1},
                    {"type": "null"},
                ]
            }
        ),
        Field(
            description="For global_alpha: the share of the smaller anchor. 'auto' (by default) finds it on text, 'distance' "
            "is how far the DesNet is from the larger anchor in parameters, as in Chain-of-Learngene."
        ),
    ] = None
    seed: Annotated[int | None, Field(ge=0, lt=2**32, description="For random: the seed; by default 0.")] = None

    refit: Annotated[
        Literal["auto", "never"],
        Field(
            description="Whether each FFN's output is fitted again to what the larger anchor's FFN writes, by ridge regression "
            "on text; 'auto' keeps that where it lowers the loss on other text."
        ),
    ] = "never"

    @property
    def reads_text(self) -> bool:
        """Whether calibration text decides the result; else it follows from the anchors and the shape alone."""
        return self.method in _SEARCHED or self.alpha == "auto" or self.refit == "auto"

    @property
    def reads_smaller(self) -> bool:
        """Whether the smaller anchor decides the result."""
        return self.method not in _LARGER_ALONE and self.alpha != 0

    def params(self) -> dict[str, Any]:
        """The values that decide the result, as JSON values, without those that follow from the method."""
        values = self.model_dump(mode="json")
        usual = {"refit": "never", **{key: default for key, (default, _) in self._own.items()}}
        found = {key: value for key, value in values.items() if key != "tokens" and value != usual.get(key)}
        return {**found, "tokens": self.tokens} if self.reads_text else found
