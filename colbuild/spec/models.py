"""The family as the user means it: what is read from the YAML files, validated, with every default filled in.

The written forms (`colbuild.spec.written`) are made of the same parts: a key, its type, its default and its description
stand once, here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import (
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from colbuild.spec.fields import (
    Beta,
    Count,
    Digest,
    Duration,
    Fraction,
    Length,
    Model,
    Name,
    Size,
    Source,
    Split,
)

API_VERSION: Final = "colbuild/v1"

STEERING: Final = frozenset(
    {"checkpoint_every", "compile", "epochs", "evaluate_every", "gradient_checkpointing", "micro_batch", "track"}
)
"""Keys of values that steer a run and change nothing in its result: no key, lock or saved plan knows them."""


def deciding(model: Model) -> dict[str, Any]:
    """The JSON values of a model that decide a result: all but `STEERING`, at any depth."""
    values: dict[str, Any] = _without_steering(model.model_dump(mode="json"))
    return values


def _without_steering(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_steering(inner) for key, inner in value.items() if key not in STEERING}
    return [_without_steering(item) for item in value] if isinstance(value, list) else value


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

    name: Annotated[Name, Field(description="Its name; also its folder's in out/.")]
    params: Annotated[
        Count | None, Field(description="How many parameters it stores, tied embeddings counted once.")
    ] = None
    shape: Annotated[
        ShapeRequest | None,
        Field(description="Its shape by hand, instead of 'params'; axes left out are the AnsNet's."),
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
        Field(description="The largest package it may give, for each of its 'exports'; it is made as large as fits."),
    ] = None


# -- data -------------------------------------------------------------------------------------------------------------


class Text(Model):
    """How text is read from a source, and how much of it.

    `limit` counts bytes of extracted text. `heldout` is the share of documents kept out of training, chosen by a stable
    hash of each document.
    """

    sha256: Annotated[Digest | None, Field(description="The file's sha256, checked before it is used.")] = None
    format: Annotated[
        Literal["auto", "text", "jsonl", "parquet", "mediawiki"],
        Field(description="What the source holds; 'auto' goes by its name."),
    ] = "auto"
    text: Annotated[
        str, Field(min_length=1, description="The field of a jsonl or parquet row that holds the text.")
    ] = "text"
    limit: Annotated[Size | None, Field(description="Stop after this much text, such as 8MB; all of it if absent.")] = (
        None
    )
    heldout: Annotated[
        float, Field(ge=0.0, lt=1.0, description="The share of documents that is kept out of training.")
    ] = 0.02


class Data(Text):
    """Where text comes from and which part of it is meant."""

    source: Annotated[Source, Field(description="./file, ./folder, pkg://, pypi:// or hf://.")]
    split: Split = "train"


class Measured(Text):
    """The text to measure on; `tokens` bounds how much of it is used."""

    split: Split = "heldout"
    tokens: Annotated[Count, Field(description="How many tokens to measure on.")] = 16384


class EvalData(Measured, Data):
    """Text to measure on, with its source."""


class DataSection(Model):
    """The corpus to train and calibrate on, and the one to measure on."""

    train: Data
    eval: EvalData


# -- recipes ----------------------------------------------------------------------------------------------------------


PARTIAL: Final = "partial"
"""In a validation's context: what is read is merged with other files first, so what a `type` asks for is not known yet."""


class Typed(Model):
    """A choice by its `type`, where some keys mean something to some types only.

    Such a key is None for any other type, and then in no JSON value either: a key that a type does not use is in no action
    key, lock or saved plan of it.
    """

    _own: ClassVar[Mapping[str, tuple[float, tuple[str, ...]]]] = {}
    """Key -> its default, and the types that use it."""

    @model_validator(mode="before")
    @classmethod
    def _with_own_defaults(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        chosen = data.get("type", cls.model_fields["type"].default)
        absent = {key: value for key, (value, types) in cls._own.items() if chosen in types and data.get(key) is None}
        return data | absent

    @field_validator("*")
    @classmethod
    def _is_used(cls, value: Any, info: ValidationInfo) -> Any:
        _, types = cls._own.get(info.field_name or "", (None, None))
        chosen = info.data.get("type")
        partial = bool(info.context and info.context.get(PARTIAL))
        if types is not None and value is not None and chosen is not None and chosen not in types and not partial:
            raise PydanticCustomError(
                "unused",
                "'{key}' means something to {types} only, not to {chosen}",
                {
                    "key": info.field_name,
                    "types": " and ".join(types),
                    "chosen": chosen,
                    "hint": f"take it away; where a recipe below gives it, write {info.field_name}: null",
                },
            )
        return value

    @model_serializer(mode="wrap")
    def _without_unused(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in dump(self).items() if value is not None or key not in self._own}


class Loss(Typed):
    """What the student is trained to do: `kd_weight` divergence from the teacher + `ce_weight` cross-entropy."""

    _own: ClassVar[Mapping[str, tuple[float, tuple[str, ...]]]] = {"skew": (0.1, ("skew_kl", "skew_rkl"))}

    type: Annotated[
        Literal["forward_kl", "reverse_kl", "skew_kl", "skew_rkl", "jsd"],
        Field(description="The divergence between teacher and student."),
    ] = "forward_kl"
    temperature: Annotated[float, Field(gt=0.0, description="Softens both distributions before comparing.")] = 1.0
    kd_weight: Annotated[float, Field(ge=0.0, description="Weight of the teacher's distribution.")] = 0.9
    ce_weight: Annotated[float, Field(ge=0.0, description="Weight of the text itself (cross-entropy).")] = 0.1
    skew: Annotated[
        Beta | None,
        Field(
            description="For skew_kl and skew_rkl: how much of what is compared is mixed into the other; by default 0.1."
        ),
    ] = None

    hidden_weight: Annotated[
        float | None,
        Field(
            ge=0.0,
            description="Weight of hidden_cosine: one minus the cosine between the student's hidden states and its "
            "teacher's, at the layers that both have. Not given: 0.1 where the student has fewer layers than its teacher "
            "and the teacher is read online, else 0.",
        ),
    ] = None

    @model_validator(mode="after")
    def _something_to_learn(self) -> Loss:
        if self.kd_weight + self.ce_weight <= 0.0:
            raise PydanticCustomError("loss", "'kd_weight' and 'ce_weight' are both 0: there is nothing to learn")
        return self


class Optimizer(Model):
    """AdamW."""

    lr: Annotated[float, Field(gt=0.0, description="The highest learning rate of the run.")] = 3e-4
    betas: Annotated[tuple[Beta, Beta], Field(description="Decay of the two running averages.")] = (0.9, 0.95)
    eps: Annotated[float, Field(gt=0.0, description="Added to the denominator.")] = 1e-8
    weight_decay: Annotated[float, Field(ge=0.0, description="Decoupled weight decay.")] = 0.0
    clip: Annotated[float, Field(gt=0.0, description="The largest gradient norm; longer gradients are scaled.")] = 1.0


class Schedule(Typed):
    """The learning rate over the run: linear warm-up over a share of the steps, then down to `final` times `lr`."""

    _own: ClassVar[Mapping[str, tuple[float, tuple[str, ...]]]] = {"decay": (0.2, ("wsd",))}

    type: Annotated[
        Literal["cosine", "linear", "constant", "wsd"], Field(description="The curve after the warm-up.")
    ] = "cosine"
    warmup: Annotated[Fraction, Field(description="The share of steps that warms up.")] = 0.1
    final: Annotated[Fraction, Field(description="The last learning rate, as a share of 'lr'.")] = 0.1
    decay: Annotated[
        Annotated[float, Field(gt=0.0, le=1.0)] | None,
        Field(description="For wsd: the share of steps, at the end, in which the rate falls; by default 0.2."),
    ] = None


class Elastic(Model):
    """A distillation that trains sub-shapes of its student too, which are prefixes of it (MatFormer, arXiv 2310.07707)."""

    form: Annotated[
        Literal["anchor", "segment"],
        Field(
            description="'anchor' trains an anchor together with its sub-shapes down to the next one; 'segment' trains, "
            "with the step that distils the next anchor, everything between the two, which is kept beside that anchor."
        ),
    ] = "segment"
    share: Annotated[
        float,
        Field(gt=0.0, lt=1.0, description="The share of each step's sequences that pass through a random sub-shape."),
    ] = 0.5


class TeacherCache(Model):
    """What is kept of a teacher's distribution for each token: at most 64 bytes."""

    type: Annotated[
        Literal["sampled", "top_k"],
        Field(
            description="'sampled' keeps tokens drawn by their probability, whose mean is the teacher's distribution "
            "(RS-KD, arXiv 2503.16870); 'top_k' the likeliest ones with their log-probabilities."
        ),
    ] = "sampled"


class Recipe(Model):
    """How to train; the same for distilling an anchor and for recovering a DesNet."""

    tokens: Annotated[Count, Field(description="How many tokens to train on.")] = 20_000_000
    seed: Annotated[int, Field(ge=0, lt=2**32, description="Decides the order of the text.")] = 0
    sequence: Annotated[int, Field(gt=1, lt=2**31, description="Tokens in a sequence.")] = 512
    batch: Annotated[int, Field(gt=0, lt=2**31, description="Sequences in an optimizer step.")] = 8
    precision: Annotated[
        Literal["bf16", "fp32"], Field(description="What forward and backward passes are computed in.")
    ] = "bf16"
    documents: Annotated[
        Literal["joined", "apart"],
        Field(
            description="Whether a sequence's tokens see those of other documents in it: 'joined' lets them, 'apart' does "
            "not. No token is ever asked for that only another document's text could tell."
        ),
    ] = "joined"
    teacher: Annotated[
        Literal["online", "cached"],
        Field(
            description="'online' computes the teacher beside the student; 'cached' writes down once what it says, for "
            "every training on the same text."
        ),
    ] = "online"
    teacher_cache: Annotated[TeacherCache, Field(description="What 'teacher: cached' writes down.")] = TeacherCache()
    elastic: Annotated[
        Elastic | None, Field(description="Train sub-shapes of the student too; distillations only.")
    ] = None
    loss: Annotated[Loss, Field(description="What the student is trained to do.")] = Loss()
    optimizer: Annotated[Optimizer, Field(description="AdamW's settings.")] = Optimizer()
    schedule: Annotated[Schedule, Field(description="The learning rate over the run.")] = Schedule()
    checkpoint_every: Annotated[
        Duration,
        Field(
            description="How often a training writes down all that it needs to go on after an interruption, such as 5min. "
            "Changes nothing in the result, so nothing is built again for it.",
            json_schema_extra={"default": "5min"},
        ),
    ] = 300.0
    evaluate_every: Annotated[
        Fraction,
        Field(
            description="How often a training measures itself on held-out text, as a share of its steps; 0 does so at its "
            "end only. Changes nothing in the result."
        ),
    ] = 0.1
    micro_batch: Annotated[
        Literal["auto"] | Annotated[int, Field(gt=0, lt=2**31)],
        Field(
            description="Sequences that pass through the models at once; a batch of more is accumulated. 'auto' takes what "
            "memory allows. Changes nothing but rounding."
        ),
    ] = "auto"
    gradient_checkpointing: Annotated[
        Literal["auto", "always", "never"],
        Field(
            description="Whether activations are computed again instead of kept: less memory, a third more work. 'auto' "
            "does so where memory ran out."
        ),
    ] = "auto"
    compile: Annotated[
        Literal["auto", "always", "never"],
        Field(description="Whether torch.compile is used; 'auto' does where the training is long enough to repay it."),
    ] = "auto"
    epochs: Annotated[
        Literal["once", "allow"],
        Field(
            description="What happens where the corpus has fewer tokens than are asked for: 'once' fails and says how often "
            "it would be read, 'allow' reads it again."
        ),
    ] = "once"
    track: Annotated[
        tuple[Literal["tensorboard", "wandb", "mlflow"], ...],
        Field(description="Where readings go beside the metrics.jsonl that is always written."),
    ] = ()


class Interpolate(Model):
    """How a DesNet is made of the two anchors around it; candidates are scored on `tokens` calibration tokens."""

    method: Annotated[
        Literal["group_alpha", "global_alpha", "subset", "expand"],
        Field(description="What is tried; 'group_alpha' tries the others too, and the best is kept."),
    ] = "group_alpha"
    tokens: Annotated[Count, Field(description="Calibration tokens that candidates are scored on.")] = 4096


class Order(Model):
    """How the AnsNet's axes are ranked: by activation statistics over `tokens` calibration tokens."""

    tokens: Annotated[Count, Field(description="Calibration tokens that importance is measured on.")] = 16384


MAX_GAP: Final = 2.5
"""How many times larger than its student a teacher may be before the student learns less from it (the capacity gap)."""


class ChainRules(Model):
    """Which distillations are made, of those that the anchors allow."""

    max_gap: Annotated[
        float,
        Field(gt=1.0, le=1e6, description="How many times larger than its student a teacher may be, in parameters."),
    ] = MAX_GAP
    route: Annotated[
        Literal["cheapest", "stepwise"],
        Field(
            description="'cheapest' distils what reaches the anchors around every DesNet for the fewest FLOPs; 'stepwise' "
            "every anchor down to the last of them, each from the one before it."
        ),
    ] = "cheapest"


# -- export profiles --------------------------------------------------------------------------------------------------


class Limits(Model):
    """What a device allows; a package that breaks one fails the build."""

    max_package: Annotated[Size | None, Field(description="The largest package the device takes, such as 120MB.")] = (
        None
    )


class Device(Model):
    """What a device profile says: the format and precision of a package, and its limits."""

    format: Annotated[Literal["onnx"], Field(description="The package's format.")] = "onnx"
    precision: Annotated[
        Literal["fp32", "int8"], Field(description="What weights are stored in; int8 with one scale for each block.")
    ] = "fp32"
    block: Annotated[
        Literal[16, 32, 64, 128], Field(description="Weights that share a scale; smaller is more exact, and larger.")
    ] = 32
    context: Annotated[int, Field(gt=0, lt=2**31, description="The longest text the package takes, in tokens.")] = 2048
    limits: Annotated[Limits, Field(description="What the device allows; a package beyond it fails the build.")] = (
        Limits()
    )


class Multiples(Model):
    """What a device's kernels like the lengths of axes to be multiples of."""

    ffn: Annotated[int, Field(gt=0, le=1024, description="The FFN width that is solved for is a multiple of this.")] = 1


class DeviceProfile(Device):
    """A device: what its packages look like, and what it asks of the models that are made for it."""

    multiples: Annotated[
        Multiples, Field(description="What solved lengths are multiples of; a shape by hand is taken as it is.")
    ] = Multiples()


class Profile(DeviceProfile):
    """Where a package ships: one device profile, `exports/<name>.yaml`."""

    name: Name


# -- the family -------------------------------------------------------------------------------------------------------


class Ancestor(Model):
    """The pretrained model that everything comes from."""

    source: Annotated[Source, Field(description="./folder, ./file.gguf, pkg://, pypi:// or hf://.")]
    sha256: Annotated[Digest | None, Field(description="The file's sha256, checked before it is used.")] = None


class AnsNet(Ancestor):
    """The pretrained ancestor; with `exports` it is packaged too, to compare with."""

    exports: tuple[Profile, ...] = ()


class Anchor(Sized):
    """One link of the learngene chain, with the recipe it is distilled by."""

    recipe: Recipe


class Automatic(Model):
    """What is decided of the anchors where colbuild places them itself (`anchors: auto`): the recipe of each."""

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
                "'{name}' has a 'max_package' but no 'exports': how large a package is depends on its device",
                {"name": self.name, "hint": "name its device profiles, as in exports: [phone-int8]"},
            )
        return self


class Family(Model):
    """A whole family, resolved: every recipe and profile read, every default filled in."""

    name: Name
    ansnet: AnsNet
    data: DataSection
    order: Order
    chain: ChainRules
    anchors: tuple[Anchor, ...]
    automatic: Automatic | None = None
    desnets: tuple[DesNet, ...]
