"""A kind of step as a value: the facts that planning, running and explaining a step need.

::

    plan/steps/<kind>.py    its parameters, how it is drawn, what it reads, makes and takes      (no torch)
    ops/<kind>.py           run(step, parameters): fills the output

`colbuild.plan.steps.operations` lists every kind.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar

from colbuild.arch import ARCHITECTURES, Shape, Structure, structure_from_json
from colbuild.plan.workload.at_once import WINDOW
from colbuild.plan.workload.training import trained_tokens
from colbuild.spec.model.device import Profile
from colbuild.spec.model.recipe import Recipe

if TYPE_CHECKING:
    from colbuild.plan.drawing.draft import Drawn, Model

WEIGHTS: Final = "weights"
CONFIG: Final = "config"
TOKENIZER: Final = "tokenizer"
CHAT: Final = "chat"
TEXTS: Final = "texts"
"""The parts of a model's output, see `colbuild.plan.drawing.parts`."""


def _profile(values: Mapping[str, Any]) -> Profile:
    # The name decides nothing, and is therefore no parameter of a step.
    return Profile.model_validate({**values, "name": "any"}, strict=False)


_READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "shape": lambda values: Shape(**values),
    "interval": lambda values: Shape(**values),
    "structure": lambda values: structure_from_json(values, ARCHITECTURES),
    "recipe": lambda values: Recipe.model_validate(values, strict=False),
    "profile": _profile,
    "files": tuple,
    "prompts": tuple,
}
"""Name of a parameter that is no plain JSON value -> how it is read from one. A name means the same in every kind."""


@dataclass(frozen=True)
class TextNeed:
    """Text that a step reads.

    Attributes:
        tokens: How many tokens.
        window: Tokens that it reads in one piece.
        path: The parameter that asks for them, and the keys inside it: where a mistake is told.
        role: The input that gives the text.
        repeats: Whether the recipe could let the text be read again.
        required: Whether the step fails with less.
    """

    tokens: int
    window: int
    path: tuple[str, ...]
    role: str = "corpus"
    repeats: bool = False
    required: bool = True


@dataclass(frozen=True)
class Params:
    """The parameters of one kind of step: a subclass has a field for each. `Step.params` holds them as JSON values."""

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Self:
        """The parameters behind the JSON values of a step or a record.

        Raises:
            TypeError: A parameter is missing or unknown, as in a record of another version.
            ValueError: A parameter has a value that it cannot have.
            KeyError: A parameter names an unknown architecture, or lacks a key.
        """
        return cls(**{key: _READERS[key](value) if key in _READERS else value for key, value in values.items()})

    @property
    def keeps_nested(self) -> bool:
        """Whether the step keeps a nested student beside the model that it makes."""
        return False

    @property
    def taught_tokens(self) -> int:
        """Tokens for which the step computes the model that it learns from; 0 for a step that learns from none."""
        return 0

    def texts(self, roles: Collection[str]) -> Iterable[TextNeed]:
        """The text that the step reads, beside that which it converts.

        Args:
            roles: The roles that are played in the step.
        """
        return ()


@dataclass(frozen=True)
class CalibrationParams(Params):
    """Parameters of a step that looks at a model on some text.

    Attributes:
        tokens: Calibration tokens.
        split: The split of the corpus that they come from.
    """

    tokens: int
    split: str

    def texts(self, roles: Collection[str]) -> Iterable[TextNeed]:
        """See `Params`."""
        yield TextNeed(self.tokens, WINDOW, ("tokens",))


@dataclass(frozen=True)
class TrainingParams(Params):
    """Parameters of a training.

    Attributes:
        recipe: How it trains.
        split: The split of the corpus.
    """

    recipe: Recipe
    split: str

    @property
    def taught_tokens(self) -> int:
        """See `Params`."""
        return trained_tokens(self.recipe)

    def texts(self, roles: Collection[str]) -> Iterable[TextNeed]:
        """See `Params`."""
        yield TextNeed(trained_tokens(self.recipe), self.recipe.sequence, ("recipe", "tokens"), repeats=True)


P = TypeVar("P", bound=Params)


@dataclass(frozen=True)
class Work:
    """The work of a step, as far as it is known beforehand.

    Attributes:
        flops: Floating point operations; None if the step's time does not go by them, or they are unknown.
        bytes: Bytes that it reads or converts, for steps whose time goes by these; None as above.
        disk: Bytes of its result; None if only its source could tell.
        memory: Bytes that it needs at its peak.
        slower: FLOPs that would take as long as its slower part takes beyond its own FLOPs.
    """

    flops: int | None
    bytes: int | None
    disk: int | None
    memory: int
    slower: int = 0

    @property
    def amount(self) -> int | None:
        """The figure that the step's time is proportional to."""
        return self.flops + self.slower if self.flops is not None else self.bytes


class UnknownModelError(Exception):
    """The structure of a model that a step works on is not known."""


@dataclass(frozen=True)
class Scene:
    """The facts about a step beside its parameters, as its work is estimated.

    Attributes:
        inputs: Role -> structure of the model that plays it, as far as known.
        made: The model that the step makes, if it makes one and that is known.
        settings: The settings that steer it and are no parameters.
        source: Where its content from outside comes from; empty if it reads none.
        alone: Whether an evaluation compares a model with itself, and so computes it once.
        nested: Whether the smaller anchor has a nested student beside it.
    """

    inputs: Mapping[str, Structure]
    made: Structure | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    alone: bool = False
    nested: bool = False

    def model(self, role: str) -> Structure:
        """The model that plays a role. Raises UnknownModelError if it is not known."""
        if role not in self.inputs:
            raise UnknownModelError(role)
        return self.inputs[role]

    @property
    def result(self) -> Structure:
        """The model that the step makes. Raises UnknownModelError if it is not known."""
        if self.made is None:
            raise UnknownModelError("the result")
        return self.made

    def vocabulary(self, role: str) -> int:
        """Tokens of the vocabulary of the model that plays a role; 0 if it is not known."""
        return self.inputs[role].shape.vocab if role in self.inputs else 0


def no_model(_params: Any, _inputs: Mapping[str, Structure], _like: Structure) -> Structure | None:
    """For kinds that make no model, or one whose structure only its source tells."""
    return None


def _no_inputs(_params: Any, _like: Structure) -> Mapping[str, Structure]:
    return {}


def _draws_nothing(_drawn: Drawn, _model: Model) -> None:
    pass


@dataclass(frozen=True)
class Operation(Generic[P]):
    """A kind of step.

    Attributes:
        op: Its name in steps, records and keys.
        epoch: Raised by hand when the same inputs and parameters give another result, so that results built before are not
            reused. `tests/ops/test_epochs.py` compares digests of the kind's sources with a committed table.
        params: Its parameters.
        module: The module whose `run(step, params)` carries it out; imported only when a step runs.
        work: Its work; may raise UnknownModelError.
        title: Name of a step -> what the step makes, in a reader's words.
        reads: Role -> the parts that it reads of the model that plays it. A role that is not here is read whole.
        reads_besides: (role, parameters as JSON) -> parts that it reads instead, where a parameter decides that.
        home: The role whose tokenizer, chat template and texts belong to the model that it makes; None if it has its own.
        made: (parameters, role -> structure of the model that plays it, a model of the family's architecture) -> the model
            that it makes; None if it makes none, or what it starts from is not known.
        inputs: (parameters, a model of the family's architecture) -> structures that inputs from outside must have.
        draws: Draws the steps of this kind that a finished model of the family gets, such as its evaluation.
        flops_share: FLOPs of a step per FLOP of multiplying matrices on all cores, where no run says better.
        byte_share: Bytes of a step per byte of text whose words one core counts, where no run says better.
        whole_machine: Whether it computes with every core; others leave half of them to a step beside them.
        takes_gpu: Whether it takes a GPU, where there is one.
        counts_as_making: Whether its FLOPs count in the price of the family's models.
        size_by_text: Whether only the text that it reads tells how much it writes at least.
        taught_by: The role of the model that it learns from.
        verified_inputs: Whether its inputs are read and hashed before it runs: what leaves for a device must be what was
            built.
        forked: Whether its libraries may be imported before its process is forked.
    """

    op: str
    epoch: int
    params: type[P]
    module: str
    work: Callable[[P, Scene], Work]
    title: Callable[[str], str] = str
    reads: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    reads_besides: Callable[[str, Mapping[str, Any]], tuple[str, ...] | None] | None = None
    home: str | None = None
    made: Callable[[P, Mapping[str, Structure], Structure], Structure | None] = no_model
    inputs: Callable[[P, Structure], Mapping[str, Structure]] = _no_inputs
    draws: Callable[[Drawn, Model], None] = _draws_nothing
    flops_share: float | None = None
    byte_share: float | None = None
    whole_machine: bool = False
    takes_gpu: bool = False
    counts_as_making: bool = False
    size_by_text: bool = False
    taught_by: str = "teacher"
    verified_inputs: bool = False
    forked: bool = True

    @property
    def follows_recipe(self) -> bool:
        """Whether a recipe steers how much memory the step takes."""
        return issubclass(self.params, TrainingParams)

    def parts(self, role: str, values: Mapping[str, Any]) -> tuple[str, ...]:
        """The parts that a step reads of the model that plays a role; none if it is read whole."""
        besides = None if self.reads_besides is None else self.reads_besides(role, values)
        return self.reads.get(role, ()) if besides is None else besides

    def work_of(self, params: P, scene: Scene) -> Work | None:
        """The work of a step with these parameters; None if a model that it works on is not known."""
        try:
            return self.work(params, scene)
        except UnknownModelError:
            return None

    def carry_out(self, step: Any, values: Mapping[str, Any]) -> None:
        """Runs a step (`colbuild.ops.step_run.StepRun`) with these parameters."""
        run: Callable[[Any, P], None] = import_module(self.module).run
        run(step, self.params.read(values))
