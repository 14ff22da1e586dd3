"""The bridge of a family in a spec: anchor zero, in another architecture or vocabulary than the AnsNet's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag

from colbuild.arch import ARCHITECTURES
from colbuild.spec.model.fields import UNION, Count, Length, Model, SourceText
from colbuild.spec.sources.grammar import check_source
from colbuild.spec.sources.schemes import schemes_named

SAME: Final = "same"
"""Written in the place of a tokenizer: the AnsNet's."""

LEAST_VOCABULARY: Final = 300
"""Tokens of the smallest vocabulary that is trained: every byte is one, and special tokens need some."""


class TrainedTokenizer(Model):
    """A vocabulary of the family's own."""

    train: Annotated[
        Count,
        Field(
            ge=LEAST_VOCABULARY,
            description="The number of tokens of a byte-level BPE, trained on the text of 'data.train'.",
        ),
    ]


def _check_tokenizer(text: str) -> str:
    if text == SAME:
        return text
    try:
        return check_source(text)
    except ValueError as error:
        raise ValueError(f"{error}; or tokenizer: same, or tokenizer: {{train: 16k}}") from None


def _kind(value: Any) -> str:
    return UNION + ("train" if isinstance(value, dict | TrainedTokenizer) else "text")


Tokenizer = Annotated[
    Annotated[TrainedTokenizer, Tag(UNION + "train")]
    | Annotated[
        str,
        AfterValidator(_check_tokenizer),
        SourceText(other="same$", rest=""),
        Tag(UNION + "text"),
    ],
    Discriminator(_kind),
]
"""`same`, where one comes from, or how large one shall be."""


if TYPE_CHECKING:
    ArchitectureName = str
else:
    ArchitectureName = Literal[tuple(ARCHITECTURES)]


class BridgeForm(Model):
    """The bridge without its recipe. Omitted values are the AnsNet's."""

    architecture: Annotated[
        ArchitectureName | None,
        Field(description="The architecture of the whole family; by default the AnsNet's."),
    ] = None
    tokenizer: Annotated[
        Tokenizer,
        Field(
            description="The vocabulary of the whole family: 'same' is the AnsNet's, {train: 16k} trains one of that size on "
            f"the text; or a source of a folder or tokenizer.json: ./dir, {schemes_named()}."
        ),
    ] = SAME
    positions: Annotated[
        Length | None,
        Field(
            description="The longest text in tokens; by default the AnsNet's, and at most 1024 if each position has "
            "its own parameters."
        ),
    ] = None
    start: Annotated[
        Literal["transplant", "random"],
        Field(
            description="'transplant' copies matching parts of the AnsNet and composes new tokens from old ones; 'random' is "
            "a baseline."
        ),
    ] = "transplant"
