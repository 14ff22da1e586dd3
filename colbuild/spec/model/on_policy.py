"""On-policy training: a student also learns from text that it writes itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from colbuild.spec.model.fields import Model

if TYPE_CHECKING:
    from colbuild.spec.model.recipe import Recipe

CHAT: Final = "chat"
"""Of `prompt`: the student writes the answers of conversations."""


def _prompt(value: object) -> object:
    """A number of tokens, or "chat"; as one check, since of two that both fail neither would say what is meant."""
    if value == CHAT or (isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31):
        return value
    raise PydanticCustomError(
        "prompt",
        "'prompt' must be chat or a number of tokens, not {value}",
        {"value": repr(value)[:60], "hint": "write prompt: 64, or prompt: chat for a corpus of conversations"},
    )


class OnPolicy(Model):
    """A training on text of which a share is the student's own (GKD, arXiv 2306.13649)."""

    share: Annotated[
        float,
        Field(
            gt=0.0, le=1.0, description="The share of the sequences that the student writes; the rest is the corpus."
        ),
    ] = 0.5
    every: Annotated[
        int,
        Field(
            gt=0,
            lt=2**31,
            description="Optimizer steps between two writings: the student writes the sequences of so many steps at once.",
        ),
    ] = 16
    prompt: Annotated[
        Literal["chat"] | int,
        PlainValidator(_prompt),
        WithJsonSchema({"anyOf": [{"const": CHAT}, {"type": "integer", "minimum": 1}]}),
        Field(
            description="The beginning of a sequence that the student continues: a number of tokens of the corpus; or 'chat': "
            "the conversation up to each answer, found by the AnsNet's chat template."
        ),
    ] = 64


Clash = tuple[tuple[str, ...], str, str]
"""(path of a value, what is wrong, what to do)."""


def clashes_on_policy(recipe: Recipe, asked: OnPolicy) -> Iterator[Clash]:
    """The values of a recipe that exclude text of the student's own."""
    without = "if a parent recipe sets it, write on_policy: null"
    if recipe.teacher == "cached":
        yield (
            ("teacher",),
            "'teacher' cannot be cached with on_policy: the text that the student writes does not exist before the training",
            f"write teacher: online, or remove 'on_policy'; {without}",
        )
    if recipe.loss.kd_weight == 0.0:
        yield (
            ("loss", "kd_weight"),
            "'kd_weight' is 0, and on text that the student writes the teacher's distribution is all there is to learn",
            f"write kd_weight: 0.9, or remove 'on_policy'; {without}",
        )
    if isinstance(asked.prompt, int) and asked.prompt >= recipe.sequence:
        yield (
            ("on_policy", "prompt"),
            f"'prompt' has {asked.prompt} tokens, so in a 'sequence' of {recipe.sequence} the student has nothing to write",
            f"write at most prompt: {recipe.sequence // 2}",
        )
