"""A device profile: the form of a package, and the device's limits."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from colbuild.spec.model.decides import Mark
from colbuild.spec.model.fields import Count, Length, Model, Name, RowOf, Size
from colbuild.spec.model.precision import PRECISIONS, Precision, named
from colbuild.spec.model.recipe import Loss, Optimizer, Recipe, clash, refuse

OLDEST_OPSET: Final = 18
NEWEST_OPSET: Final = 24
"""What ONNX operator sets the graph can be written in."""
COARSE: Final = 128
"""The largest block: what loses little gets by with it, and leaves room for what does not."""
BLOCKS_OPSET: Final = 21
"""ONNX's own operators dequantise by blocks from this set on."""

Kind = Literal["first", "last", "query", "key", "value", "output", "gate", "up", "down"]
"""Which matrices: those of the first or last layer, or one kind in every layer."""


class Limits(Model):
    """A device's limits; a package beyond one of them fails the build."""

    max_package: Annotated[Size | None, Field(description="The largest package the device takes, such as 120MB.")] = (
        None
    )
    max_memory: Annotated[
        Size | None,
        Field(description="The most memory that running the package may take, with its weights and a full cache."),
    ] = None
    max_perplexity_increase: Annotated[
        float | None,
        Field(
            gt=0.0,
            description="The largest increase of perplexity over the PyTorch model, on held-out text: 0.05 is 5%.",
        ),
    ] = None
    min_decode_tps: Annotated[
        float | None,
        Field(
            gt=0.0,
            description="Tokens a second that it must at least generate: measured here with the profile's 'threads', or what "
            "the device's 'bandwidth' allows where that is given.",
        ),
    ] = None
    when_broken: Annotated[
        Literal["fail", "warn"],
        Field(description="Whether a broken limit fails the build, or is a warning in the manifest."),
    ] = "fail"


class Static(Model):
    """Lengths that never change, for processors that compile a graph for them."""

    sequence: Annotated[
        Length,
        Field(description="Tokens in each call; shorter calls are padded. The cache has room for the context."),
    ] = 1


QUANTISED_RECOVERY: Final = "quantised"
"""Written in the place of a recovery: one with the defaults."""


class Recovery(Model):
    """A short training of a model with rounded weights towards itself unrounded; see `docs/packages.md`."""

    tokens: Annotated[Count, Field(description="The number of training tokens.")] = 65_536
    sequence: Annotated[int, Field(gt=1, lt=2**31, description="Tokens in a sequence.")] = 256
    batch: Annotated[int, Field(gt=0, lt=2**31, description="Sequences in an optimizer step.")] = 4
    lr: Annotated[float, Field(gt=0.0, description="The highest learning rate.")] = 2e-3
    seed: Annotated[int, Field(ge=0, lt=2**32, description="The seed of the order of the text.")] = 0

    def recipe(self) -> Recipe:
        """The same as a recipe: nothing but the unrounded model's distribution is learned."""
        return Recipe(
            tokens=self.tokens,
            sequence=self.sequence,
            batch=self.batch,
            seed=self.seed,
            embeddings="train",
            loss=Loss(kd_weight=1.0, ce_weight=0.0),
            optimizer=Optimizer(lr=self.lr),
            epochs="allow",
        )


def _recovery(value: object) -> object:
    """The defaults where they are asked for by name."""
    if value == QUANTISED_RECOVERY:
        return Recovery()
    if isinstance(value, str):
        raise PydanticCustomError(
            "recover",
            "'recover' must be quantised or a mapping of its settings, not '{value}'",
            {"value": value[:60], "hint": "write recover: quantised, or recover: {tokens: 64k}"},
        )
    return value


def _recovery_schema() -> Any:
    return {"anyOf": [{"const": QUANTISED_RECOVERY}, {"type": "null"}, Recovery.model_json_schema()]}


class Device(Model):
    """The format and precision of a package, and its limits."""

    format: Annotated[Literal["onnx"], Field(description="The package's format.")] = "onnx"
    precision: Annotated[
        str,
        RowOf(PRECISIONS),
        Field(
            description="The number format of weights. int8 and int4: blocks of integers with a scale each. int4-mixed: the "
            "matrices that lose most keep 8 bits, as many as 'limits.max_package' has room for."
        ),
    ] = "fp32"
    operators: Annotated[
        Literal["contrib", "standard"],
        Field(
            description="The graph's operators: 'contrib' includes onnxruntime's own, which are faster there; "
            "'standard' ONNX's alone, for any runtime that knows its operator set."
        ),
    ] = "contrib"
    opset: Annotated[
        int | None,
        Field(
            ge=OLDEST_OPSET,
            le=NEWEST_OPSET,
            description="The version of ONNX's operator set that the graph is written in, for runtimes that do not know the "
            "newest; by default 24.",
        ),
    ] = None
    block: Annotated[
        Literal[16, 32, 64, 128], Field(description="Weights that share a scale; smaller is more exact, and larger.")
    ] = 32
    keep_8bit: Annotated[
        tuple[Kind, ...],
        Field(description="The parts that keep 8 bits in int4, besides the embedding and the head."),
    ] = ()
    embedding_bits: Annotated[
        Literal[4, 8],
        Field(
            description="Bits of the embedding and the head in int4 and int4-mixed; 4 is smaller, faster and less exact."
        ),
    ] = 8
    calibration: Annotated[
        Count, Field(description="Tokens of the family's text that int4 and int4-mixed are fitted on.")
    ] = 4096
    recover: Annotated[
        Recovery | None,
        BeforeValidator(_recovery),
        WithJsonSchema(_recovery_schema()),
        Field(
            description="For int4 and int4-mixed: 'quantised' trains the rounded model for a short while towards itself "
            "unrounded; {tokens: 64k} and the like say how long."
        ),
    ] = None
    context: Annotated[
        Length,
        Field(
            description="The longest text the package takes, in tokens; by default 2048, or as many as the model has positions "
            "if these are fewer."
        ),
    ] = 2048
    static: Annotated[
        Static | None,
        Field(description="Fixed lengths, for NPUs; by default texts and batches may have any length."),
    ] = None
    threads: Annotated[
        int | None, Field(gt=0, le=1024, description="Threads that the device computes with; all it has by default.")
    ] = None
    bandwidth: Annotated[
        Size | None,
        Field(
            description="Bytes a second that the device reads from its memory, such as 12GB: each token reads all weights "
            "once, so no more tokens a second are possible. 'min_decode_tps' is then judged by it, not measured here."
        ),
    ] = None
    limits: Annotated[Limits, Field(description="The device's limits; a package beyond them fails the build.")] = (
        Limits()
    )

    @property
    def stored(self) -> Precision:
        """The row of its precision."""
        return PRECISIONS[self.precision]

    @property
    def fitted(self) -> bool:
        """Whether its rounding is fitted on text."""
        return self.stored.fitted

    @property
    def has_large_embedding(self) -> bool:
        """Whether its embedding and head have 8 bits and could have 4."""
        return self.fitted and self.embedding_bits == 8 and self.operators == "contrib"

    @property
    def table_block(self) -> int:
        """Weights of the embedding and the head that share a scale; measurements leave the room to what loses more."""
        return COARSE if self.stored.measured and self.embedding_bits == 8 else self.block

    @property
    def table_bits(self) -> int:
        """Bits of the embedding and the head."""
        return self.embedding_bits if self.fitted else self.stored.bits

    @property
    def _dequantises(self) -> bool:
        """Whether ONNX's own operators read its weights by blocks."""
        return self.stored.quantised and self.operators == "standard"

    @model_validator(mode="after")
    def _fits_together(self) -> Device:
        """Refuses values that say nothing, or nothing that can be."""
        clashes = []
        stored, other = self.stored, f"and this profile's is {self.precision}"
        chosen, fitted = named(lambda row: row.fitted and not row.measured), named(lambda row: row.fitted)
        if self.keep_8bit and (stored.measured or not self.fitted):
            message = f"'keep_8bit' is for precision: {chosen}, {other}"
            measured = f"remove it; {self.precision} chooses by measurement"
            hint = measured if stored.measured else f"remove it, or write {chosen}"
            clashes.append(clash(("keep_8bit",), message, hint))
        if self.embedding_bits == 4 and not self.fitted:
            message = f"'embedding_bits' is for precision: {fitted}, {other}"
            clashes.append(clash(("embedding_bits",), message, f"remove it, or write {chosen}"))
        elif self.embedding_bits == 4 and self.operators == "standard":
            message = "ONNX's own operators cannot look up rows of 4 bits: Gather reads whole bytes"
            clashes.append(clash(("embedding_bits",), message, "write operators: contrib, or remove it"))
        if stored.measured and self.limits.max_package is None:
            gives = f"'{self.precision}' gives 8 bits to what loses most, as far as there is room"
            message = f"{gives}, and there is no 'max_package'"
            clashes.append(clash(("precision",), message, "write a limit, as in limits: {max_package: 105MB}"))
        if self.recover is not None and not self.fitted:
            message = f"'recover' is for precision: {fitted}, {other}"
            clashes.append(clash(("recover",), message, "remove it: 8 bits and more lose next to nothing"))
        if self.opset is not None and self.opset < BLOCKS_OPSET and self._dequantises:
            message = (
                f"ONNX's operator set {self.opset} cannot read {self.precision}: its DequantizeLinear knows blocks from "
                f"{BLOCKS_OPSET} on"
            )
            whole = min((row for row in PRECISIONS.values() if not row.quantised), key=lambda row: row.bits).name
            clashes.append(
                clash(("opset",), message, f"write opset: {BLOCKS_OPSET} or more, or operators: contrib, or {whole}")
            )
        if self.static is not None and self.static.sequence > self.context:
            message = f"a call of {self.static.sequence:,} tokens is longer than the context of {self.context:,}"
            clashes.append(clash(("static", "sequence"), message, "write a smaller sequence, or a larger context"))
        refuse(*clashes)
        return self


class Multiples(Model):
    """Multiples that a device's kernels prefer for the lengths of axes."""

    ffn: Annotated[int, Field(gt=0, le=1024, description="The FFN width that is solved for is a multiple of this.")] = 1


class DeviceProfile(Device):
    """A device: what its packages look like, and what it asks of the models that are made for it."""

    multiples: Annotated[
        Multiples,
        Mark.APART,
        Field(description="Multiples for solved lengths; a shape in the spec is used unchanged."),
    ] = Multiples()


class Profile(DeviceProfile):
    """A device profile, `exports/<name>.yaml`."""

    name: Annotated[Name, Mark.APART]
