"""A recipe: how to train."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import (
    Field,
    PlainValidator,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    model_serializer,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from colbuild.spec.model.batch_size import AUTO, batch_of, micro_batch_of
from colbuild.spec.model.decides import Mark
from colbuild.spec.model.fields import Beta, Count, Duration, Fraction, Model, RowOf
from colbuild.spec.model.on_policy import OnPolicy, clashes_on_policy
from colbuild.spec.model.precision import COMPUTING
from colbuild.spec.model.typed import Typed, partial


class Loss(Typed):
    """The student's loss: `kd_weight` divergence from the teacher + `ce_weight` cross-entropy."""

    _own: ClassVar[Mapping[str, tuple[float | str, tuple[str, ...]]]] = {"skew": (0.1, ("skew_kl", "skew_rkl"))}

    type: Annotated[
        Literal["forward_kl", "reverse_kl", "skew_kl", "skew_rkl", "jsd"],
        Field(description="The divergence between teacher and student."),
    ] = "forward_kl"
    temperature: Annotated[float, Field(gt=0.0, description="Softens both distributions before they are compared.")] = (
        1.0
    )
    kd_weight: Annotated[float, Field(ge=0.0, description="Weight of the teacher's distribution.")] = 0.6
    ce_weight: Annotated[float, Field(ge=0.0, description="Weight of the text itself (cross-entropy).")] = 0.4
    skew: Annotated[
        Beta | None,
        Field(
            description="For skew_kl and skew_rkl: the share of one distribution that is mixed into the other; by default 0.1."
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

    across: Annotated[
        Literal["alm", "uld", "mined", "seqkd"] | None,
        Mark.APART,
        Field(
            description="For a bridge to another vocabulary: the loss against the AnsNet. 'alm' (by default) compares the "
            "predictions where both have read the same text, and the likelihoods of chunks; 'mined' matches its "
            "tokens by the smallest edit distance; 'uld' compares sorted probabilities; 'seqkd' trains on text that "
            "it wrote."
        ),
    ] = None

    @model_validator(mode="after")
    def _something_to_learn(self) -> Loss:
        if self.kd_weight + self.ce_weight <= 0.0:
            raise PydanticCustomError("loss", "'kd_weight' and 'ce_weight' are both 0, so the loss is empty")
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

    _own: ClassVar[Mapping[str, tuple[float | str, tuple[str, ...]]]] = {"decay": (0.2, ("wsd",))}

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
            "with the step that distils the next anchor, all shapes between the two, and keeps them beside that anchor."
        ),
    ] = "anchor"
    share: Annotated[
        float,
        Field(gt=0.0, lt=1.0, description="The share of each step's sequences that pass through a random sub-shape."),
    ] = 0.4

    @property
    def larger_end(self) -> float:
        """Of the sequences that pass through an end of the interval, the share that passes through the larger one."""
        return _LARGER_END[self.form]

    def mean(self, larger: int, smaller: int) -> int:
        """Returns the mean cost of a sequence from the costs at both ends; random sub-shapes count as the middle."""
        place = self.share / 2 + (1.0 - self.share) * self.larger_end
        return smaller + round(place * (larger - smaller))


_LARGER_END: Final = {"anchor": 0.5, "segment": 0.0625}
"""The larger end of a segment begins as its own teacher and has little to learn; the smaller one is the anchor."""


class TeacherCache(Model):
    """The stored form of a teacher's distribution: at most 64 bytes for each token."""

    type: Annotated[
        Literal["sampled", "top_k"],
        Field(
            description="'sampled' keeps tokens sampled by their probability, whose mean is the teacher's distribution "
            "(RS-KD, arXiv 2503.16870); 'top_k' the most likely ones with their log-probabilities."
        ),
    ] = "sampled"


_SEQUENCES: Final = WithJsonSchema({"anyOf": [{"const": AUTO}, {"type": "integer", "minimum": 1}]})
"""The schema of a number of sequences, or `auto`."""

_LATER: Final = frozenset({"on_policy"})
"""Fields that are in no JSON value while they are not set."""


class Recipe(Model):
    """A recipe of training, for distilling an anchor and for recovering a DesNet."""

    tokens: Annotated[Count, Field(description="The number of training tokens.")] = 20_000_000
    seed: Annotated[int, Field(ge=0, lt=2**32, description="The seed of the order of the text.")] = 0
    sequence: Annotated[int, Field(gt=1, lt=2**31, description="Tokens in a sequence.")] = 512
    batch: Annotated[
        int,
        PlainValidator(batch_of),
        _SEQUENCES,
        Field(
            validate_default=True,
            description="Sequences in an optimizer step. 'auto' follows from 'tokens': the longer a training, the larger "
            "its steps.",
        ),
    ] = AUTO  # type: ignore[assignment]
    precision: Annotated[
        str, RowOf(COMPUTING), Field(description="The number format of forward and backward passes.")
    ] = "bf16"
    documents: Annotated[
        Literal["joined", "apart"],
        Field(
            description="Whether a sequence's tokens see those of other documents in it: 'joined' lets them, 'apart' does "
            "not. With 'joined', the first token after a separator is not a target."
        ),
    ] = "joined"
    teacher: Annotated[
        Literal["online", "cached"],
        Field(
            description="'online' runs the teacher beside the student; 'cached' stores its distributions once, for "
            "every training on the same text."
        ),
    ] = "online"
    teacher_cache: Annotated[TeacherCache, Mark.APART, Field(description="What 'teacher: cached' stores.")] = (
        TeacherCache()
    )
    elastic: Annotated[
        Elastic | None, Mark.APART, Field(description="Train sub-shapes of the student too; distillations only.")
    ] = None
    on_policy: Annotated[
        OnPolicy | None, Field(description="Train on text that the student writes too; with an online teacher only.")
    ] = None
    embeddings: Annotated[
        Literal["auto", "keep", "train"],
        Field(
            description="Whether the embedding and the head are trained: 'keep' leaves them as the student begins with "
            "them. 'auto' keeps them in a training of at most a million tokens if the student has its teacher's whole."
        ),
    ] = "auto"
    loss: Annotated[Loss, Field(description="The loss of the student.")] = Loss()
    optimizer: Annotated[Optimizer, Field(description="AdamW's settings.")] = Optimizer()
    schedule: Annotated[Schedule, Field(description="The learning rate over the run.")] = Schedule()
    checkpoint_every: Annotated[
        Duration,
        Mark.STEERS,
        Field(
            description="The time between two checkpoints for resuming after an interruption, such as 5min. "
            "Does not change the result, so a change builds nothing again.",
            json_schema_extra={"default": "5min"},
        ),
    ] = 300.0
    evaluate_every: Annotated[
        Fraction,
        Mark.STEERS,
        Field(
            description="How often a training measures itself on held-out text, as a share of its steps; 0 does so at its "
            "end only. Does not change the result."
        ),
    ] = 0.1
    micro_batch: Annotated[
        Literal["auto"] | int,
        Mark.STEERS,
        PlainValidator(micro_batch_of),
        _SEQUENCES,
        Field(
            description="Sequences in a micro-batch; a larger batch is accumulated. 'auto' uses the size that "
            "memory allows. Changes only the rounding."
        ),
    ] = "auto"
    gradient_checkpointing: Annotated[
        Literal["auto", "always", "never"],
        Mark.STEERS,
        Field(
            description="Whether activations are recomputed instead of kept: less memory, a third more work. 'auto' "
            "does so after memory ran out."
        ),
    ] = "auto"
    compile: Annotated[
        Literal["auto", "always", "never"],
        Mark.STEERS,
        Field(
            description="Whether training runs in compiled code; 'auto' does so if the training is long enough to benefit."
        ),
    ] = "auto"
    epochs: Annotated[
        Literal["once", "allow"],
        Mark.STEERS,
        Field(
            description="What happens if the corpus has too few tokens: 'once' fails and says how often "
            "it would be read, 'allow' reads it again."
        ),
    ] = "once"
    track: Annotated[
        tuple[Literal["tensorboard", "wandb", "mlflow"], ...],
        Mark.STEERS,
        Field(description="Services that receive readings, besides metrics.jsonl."),
    ] = ()

    @model_serializer(mode="wrap")
    def _without_unset(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A training without a newer feature has the key, lock and saved plan that it had before there was this feature."""
        return {key: value for key, value in dump(self).items() if value is not None or key not in _LATER}

    @model_validator(mode="after")
    def _fits_together(self, info: ValidationInfo) -> Recipe:
        """Refuses values that exclude each other, all at once and each at its own place."""
        if not partial(info):
            refuse(*self._clashes())
        return self

    def _clashes(self) -> Iterator[InitErrorDetails]:
        if self.teacher == "cached":
            yield from _clashes_with_cached(self.loss)
        if self.on_policy is not None:
            yield from (clash(*found) for found in clashes_on_policy(self, self.on_policy))


def _clashes_with_cached(loss: Loss) -> Iterator[InitErrorDetails]:
    """What cannot be learned from what is kept of a teacher."""
    if loss.type != "forward_kl":
        yield clash(
            ("loss", "type"),
            f"'type' cannot be {loss.type} with teacher: cached: a sample of the teacher's distribution is an unbiased "
            "estimate of the forward KL only; the others read the teacher's probability of what the student finds likely, "
            "which is not kept",
            "write type: forward_kl, or teacher: online",
        )
    if loss.hidden_weight:
        yield clash(
            ("loss", "hidden_weight"),
            "'hidden_weight' must be 0 with teacher: cached: a teacher's hidden states are not stored",
            "remove it, or write teacher: online; if a parent recipe sets it, write hidden_weight: null",
        )
    if loss.kd_weight == 0.0:
        yield clash(
            ("loss", "kd_weight"),
            "'kd_weight' is 0, and with teacher: cached the student learns nothing else from the teacher, so its cache would "
            "never be read",
            "write teacher: online",
        )


def clash(at: tuple[str, ...], message: str, hint: str) -> InitErrorDetails:
    """A mistake of values that are right by themselves, told at the path of one of them."""
    # What a message holds in braces would be taken for a field of the context.
    error = PydanticCustomError("clash", "{message}", {"message": message, "hint": hint})
    return InitErrorDetails(type=error, loc=at, input=None)


def refuse(*clashes: InitErrorDetails) -> None:
    """Raises all of some mistakes at once, if there are any; to be called by a model's validator."""
    if clashes:
        raise ValidationError.from_exception_data("Recipe", list(clashes))
