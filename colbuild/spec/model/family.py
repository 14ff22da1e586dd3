"""The resolved family: read from the YAML files, validated, with every default filled in.

The written forms (`colbuild.spec.model.written`) are made of the same parts: a key, its type, its default and its description
stand once, here.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from colbuild.spec.model.bridge import SAME, BridgeForm
from colbuild.spec.model.device import Profile
from colbuild.spec.model.fields import Count, DataSource, Digest, Globs, Length, Model, Name, RowOf, Size, Source, Split
from colbuild.spec.model.mixing import Interpolate
from colbuild.spec.model.recipe import Recipe, clash, refuse
from colbuild.spec.sources.choice import with_files
from colbuild.spec.sources.formats import AUTO, FORMATS
from colbuild.spec.sources.schemes import schemes_named

API_VERSION: Final = "colbuild/v1"


class ShapeRequest(Model):
    """A shape by hand; an axis that is left out is the AnsNet's."""

    layers: Annotated[Length | None, Field(description="Transformer blocks.")] = None
    hidden: Annotated[Length | None, Field(description="Width of the residual stream.")] = None
    ffn: Annotated[Length | None, Field(description="Width of each block's feed-forward part.")] = None
    heads: Annotated[Length | None, Field(description="Query heads.")] = None
    kv_heads: Annotated[Length | None, Field(description="Key/value heads; 'heads' is a multiple of it.")] = None


def either_size(schema: dict[str, Any]) -> None:
    """Says in a JSON schema what `Sized` checks."""
    keys = ("params", "shape", "max_package")
    schema["oneOf"] = [{"required": [key]} for key in keys if key in schema["properties"]]


class Sized(Model):
    """Something with a name and exactly one of the keys that give a size."""

    model_config = ConfigDict(json_schema_extra=either_size)

    _sizes: ClassVar[tuple[str, ...]] = ("params", "shape")

    name: Annotated[Name, Field(description="Its name, also the name of its folder in out/.")]
    params: Annotated[
        Count | None, Field(description="The number of stored parameters, tied embeddings counted once.")
    ] = None
    shape: Annotated[
        ShapeRequest | None,
        Field(description="Its shape, instead of 'params'; omitted axes are the AnsNet's."),
    ] = None

    @model_validator(mode="after")
    def _one_size(self) -> Sized:
        given = [key for key in self._sizes if getattr(self, key) is not None]
        if len(given) > 1:
            which = (
                f"both '{given[0]}' and '{given[1]}'" if len(given) == 2 else "all of 'params', 'shape', 'max_package'"
            )
            hint = "keep one of the two" if len(given) == 2 else "keep one of them"
            raise PydanticCustomError("size", "'{name}' has {which}", {"name": self.name, "which": which, "hint": hint})
        if not given:
            hint = "give its size, as in params: 88M, or a shape by hand, as in shape: {layers: 24, ffn: 1280}"
            if "max_package" in self._sizes:
                hint += ", or the largest package that its devices take, as in max_package: 40MB"
            which = "neither 'params' nor 'shape'"
            raise PydanticCustomError("size", "'{name}' has {which}", {"name": self.name, "which": which, "hint": hint})
        return self


class SizedByDevice(Sized):
    """Something whose size may also follow from the largest package that its devices take."""

    _sizes: ClassVar[tuple[str, ...]] = ("params", "shape", "max_package")

    max_package: Annotated[
        Size | None,
        Field(description="The largest package for each of its 'exports'; the model is as large as fits."),
    ] = None


# -- data -------------------------------------------------------------------------------------------------------------


class Text(Model):
    """The reading of a text from a source, and its amount.

    `limit` counts bytes of extracted text. `heldout` is the share of documents kept out of training, chosen by a stable
    hash of each document.
    """

    sha256: Annotated[Digest | None, Field(description="The file's sha256, checked before it is used.")] = None
    files: Annotated[
        Globs | None,
        Field(description="The files of a folder, repository or archive to read: a name with *, or a list of names."),
    ] = None
    format: Annotated[
        str,
        RowOf(FORMATS, AUTO),
        Field(description="The format of the source; 'auto' uses the names of its files, and their first bytes."),
    ] = AUTO
    text: Annotated[
        str,
        Field(min_length=1, description="The field of a jsonl, parquet, arrow or csv row that holds the text."),
    ] = "text"
    limit: Annotated[Size | None, Field(description="The amount of text to read, such as 8MB; all by default.")] = None
    heldout: Annotated[
        float, Field(ge=0.0, lt=1.0, description="The share of documents that are held out of training.")
    ] = 0.02


class Generate(Model):
    """Text that the AnsNet writes itself, for a family that has none."""

    tokens: Annotated[Count, Field(description="The number of tokens to write.")]
    temperature: Annotated[
        float, Field(gt=0.0, description="Below 1 gives more likely text, above 1 more varied text.")
    ] = 1.0
    prompts: Annotated[
        tuple[str, ...],
        Field(description="Beginnings of texts, used in turn; without prompts, the model begins each text."),
    ] = ()
    length: Annotated[int, Field(gt=1, lt=2**31, description="The largest number of tokens in a text.")] = 256
    seed: Annotated[int, Field(ge=0, lt=2**32, description="The random seed.")] = 0


class Data(Text):
    """The origin of a text, a source or the AnsNet itself, and the part of it to read."""

    source: Annotated[DataSource | None, Field(description=f"./file, ./folder, {schemes_named()}.")] = None
    generate: Annotated[
        Generate | None,
        Field(validate_default=True, description="Text that the AnsNet writes, instead of a 'source'."),
    ] = None
    split: Split = "train"

    @field_validator("generate")
    @classmethod
    def _from_one_place(cls, value: Generate | None, info: ValidationInfo) -> Generate | None:
        if "source" not in info.data:
            return value  # what is wrong with it is told anyway
        source = info.data["source"]
        if source is None and value is None:
            hint = "name a text, as in source: ./texts.jsonl, or let the AnsNet write one: generate: {tokens: 200k}"
            raise PydanticCustomError("data", "'source' is missing", {"hint": hint})
        if source is not None and value is not None:
            hint = "keep one of the two"
            raise PydanticCustomError("data", "the text has both a 'source' and 'generate'", {"hint": hint})
        for key in ("sha256", "files") if value is not None else ():
            if info.data.get(key) is not None:
                raise PydanticCustomError(
                    "data", f"'{key}' belongs to a source, and this text is generated", {"hint": "remove it"}
                )
        return value

    @property
    def content(self) -> str | None:
        """The source with its choice of files, as `colbuild.spec.sources.choice` writes both; None for generated text."""
        return None if self.source is None else with_files(self.source, self.files)


class Measured(Text):
    """The text to measure on; `tokens` bounds how much of it is used."""

    split: Split = "heldout"
    tokens: Annotated[Count, Field(description="The number of evaluation tokens.")] = 16384


class EvalData(Measured, Data):
    """Text to measure on, with its source."""


def is_another_text(one: Data, other: Data) -> bool:
    """Whether two texts have different origins, whatever part of each is read."""
    return (one.content, one.generate) != (other.content, other.generate)


Begin = Annotated[
    str | None,
    Field(
        min_length=1,
        description="The token that every text begins with, such as <s>, or none; by default the tokenizer's own "
        "beginning.",
    ),
]


class DataSection(Model):
    """The corpus to train and calibrate on, and the one to measure on; what their texts begin with."""

    train: Data
    eval: EvalData
    begin: Begin = None


class Order(Model):
    """The ranking of the AnsNet's axes: by activation statistics over `tokens` calibration tokens."""

    tokens: Annotated[Count, Field(description="Calibration tokens for measuring importance.")] = 16384


MAX_GAP: Final = 2.5
"""How many times larger than its student a teacher may be before the student learns less from it (the capacity gap)."""


class ChainRules(Model):
    """The choice of distillations among those that the anchors allow."""

    max_gap: Annotated[
        float,
        Field(gt=1.0, le=1e6, description="The largest ratio of parameters between a teacher and its student."),
    ] = MAX_GAP
    route: Annotated[
        Literal["cheapest", "stepwise"],
        Field(
            description="'cheapest' reaches the anchors around every DesNet with the fewest FLOPs; 'stepwise' distils "
            "every anchor down to the last of them, each from the one before it."
        ),
    ] = "cheapest"


# -- the family -------------------------------------------------------------------------------------------------------


class Ancestor(Model):
    """The pretrained model that everything comes from."""

    source: Annotated[Source, Field(description=f"./folder, ./file.gguf, {schemes_named()}.")]
    sha256: Annotated[Digest | None, Field(description="The file's sha256, checked before it is used.")] = None


class AnsNet(Ancestor):
    """The pretrained ancestor; with `exports` it is packaged too, to compare with."""

    exports: tuple[Profile, ...] = ()


class Start(Model):
    """A model that an anchor starts from instead of its teacher's subset, as the anchors of Chain-of-Learngene may."""

    checkpoint: Annotated[Source, Field(description="Of the AnsNet's architecture and vocabulary; as 'ansnet.source'.")]
    align: Annotated[
        Literal["permute", "procrustes", "none"],
        Field(
            description="How its parts are matched to the teacher's, without a change of its outputs: 'permute' "
            "reorders residual channels, heads and FFN channels, 'procrustes' rotates the residual "
            "stream instead, 'none' leaves the parts in their order."
        ),
    ] = "permute"
    tokens: Annotated[Count, Field(description="Calibration tokens for comparing parts.")] = 4096


class Anchor(Sized):
    """One link of the learngene chain, with the recipe it is distilled by."""

    recipe: Recipe
    init: Start | None = None

    @model_validator(mode="after")
    def _starts_somewhere(self) -> Anchor:
        """Refuses what cannot be meant together with a checkpoint to start from."""
        if self.init is None:
            return self
        clashes = []
        if self.shape is None:
            message = f"'{self.name}' starts from a checkpoint and has its shape, so 'params' is not allowed"
            clashes.append(
                clash(("params",), message, "write the checkpoint's shape, as in shape: {layers: 24, ffn: 1280}")
            )
        if self.recipe.elastic is not None and self.recipe.elastic.form == "segment":
            message = (
                f"'{self.name}' starts from a checkpoint, but a segment starts from the teacher: with elastic: "
                "{form: segment} the checkpoint would be unused"
            )
            clashes.append(clash(("init",), message, "write elastic: null beside it, or elastic: {form: anchor}"))
        refuse(*clashes)
        return self


class Bridge(BridgeForm):
    """Anchor zero, distilled from the AnsNet once where the family has another architecture or vocabulary."""

    params: Count | None = None
    shape: ShapeRequest | None = None
    recipe: Recipe

    @model_validator(mode="after")
    def _one_size(self) -> Bridge:
        if self.params is not None and self.shape is not None:
            refuse(clash(("shape",), "the bridge has both 'params' and 'shape'", "keep one of the two"))
        return self

    @model_validator(mode="after")
    def _is_taught(self) -> Bridge:
        if self.tokenizer != SAME and self.recipe.teacher == "cached":
            message = (
                "'teacher' cannot be cached for a bridge to another vocabulary: the stored distribution of a teacher is in "
                "its own tokens"
            )
            refuse(clash(("recipe", "teacher"), message, "write teacher: online in 'bridge'"))
        if self.tokenizer != SAME and self.recipe.on_policy is not None:
            message = (
                "'on_policy' is for students with their teacher's vocabulary: a bridge to another one learns from the corpus "
                "alone, or with loss.across: seqkd from text that the AnsNet writes"
            )
            hint = "remove it from 'bridge'; if a parent recipe sets it, write on_policy: null"
            refuse(clash(("recipe", "on_policy"), message, hint))
        return self


class Automatic(Model):
    """The recipe of anchors that colbuild places (`anchors: auto`)."""

    recipe: Recipe


class DesNet(SizedByDevice):
    """A model to deliver."""

    interpolate: Interpolate
    recover: Recipe | None = None
    exports: tuple[Profile, ...] = ()

    @model_validator(mode="after")
    def _device_is_known(self) -> DesNet:
        if self.max_package is not None and not self.exports:
            raise PydanticCustomError(
                "size",
                "'{name}' has a 'max_package' but no 'exports': the size of a package depends on its device",
                {"name": self.name, "hint": "name its device profiles, as in exports: [phone-int8]"},
            )
        return self

    @model_validator(mode="after")
    def _recovers_alone(self) -> DesNet:
        if self.recover is not None and self.recover.elastic is not None:
            refuse(
                clash(
                    ("recover", "elastic"),
                    f"'elastic' is for distillations: no anchor lies below '{self.name}' that its recovery could reach down to",
                    "remove it; if a parent recipe sets it, write elastic: null",
                )
            )
        return self


class Family(Model):
    """A whole family, resolved: every recipe and profile read, every default filled in."""

    name: Name
    ansnet: AnsNet
    data: DataSection
    order: Order
    chain: ChainRules
    bridge: Bridge | None = None
    anchors: tuple[Anchor, ...]
    automatic: Automatic | None = None
    desnets: tuple[DesNet, ...]
