"""Checkpoints: a model between two others, and a model with its axes in order of importance.

    small ──────────> source ──────────────> align ─┐
    large ──────────> source ──> order ───────┴─────┴─> interpolate ──> Checkpoint

Two anchors of a family are nested already: they go into `interpolate` as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from colbuild.arch import Shape, Structure, parameters
from colbuild.arch.solving import NoShapeError, contains, refusals, solve_between
from colbuild.errors import BuildError
from colbuild.interface.arguments import Shown, StrPath, as_path, checked, listening, looked_at, python_hints
from colbuild.interface.scratch import SPLIT, Scratch, Texts, copy_to, tokens_in
from colbuild.plan.shapes.by_hand import completed, requested
from colbuild.plan.steps.interpolate import FITTED_TEXT
from colbuild.report.html_table import html_facts
from colbuild.spec.model.family import Generate, Sized
from colbuild.spec.model.mixing import Interpolate
from colbuild.units import format_count

if TYPE_CHECKING:
    from colbuild.weights.files.checkpoint import Checkpoint as Facts

TOKENS: Final = 8192
"""Tokens of text that models are looked at with, if nothing else is asked for."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A model in a folder that transformers loads; `save` puts it where it shall stay.

    Attributes:
        folder: Where it lies; a temporary folder until it is saved.
        structure: Its architecture and lengths.
        mixture: How two models were mixed to make it, if it was made so.
    """

    folder: Path
    structure: Structure
    mixture: Mapping[str, Any] | None = None
    _scratch: Scratch | None = field(default=None, repr=False)

    @property
    def shape(self) -> Shape:
        """The lengths of its axes."""
        return self.structure.shape

    @property
    def parameters(self) -> int:
        """The number of stored parameters."""
        return parameters(self.structure)

    def save(self, to: StrPath) -> Checkpoint:
        """Writes it to a folder that does not exist yet, or is empty: weights, configuration, tokenizer and licence.

        Raises:
            BuildError: There is something else, or the disk refuses.
        """
        target = new_folder(to)
        copy_to(self.folder, target)
        return Checkpoint(target, self.structure, self.mixture)

    def __fspath__(self) -> str:
        return str(self.folder)

    def __repr__(self) -> str:
        return (
            f"<Checkpoint {format_count(self.parameters)} {self.structure.architecture.name}, {_lengths(self.shape)}>"
        )

    def _repr_html_(self) -> str:
        facts = {"architecture": self.structure.architecture.name, "parameters": format_count(self.parameters)}
        facts |= {axis: str(length) for axis, length in asdict(self.shape).items()}
        return html_facts("Checkpoint", facts)


@python_hints()
def interpolate(
    first: StrPath,
    second: StrPath,
    *,
    params: int | str | None = None,
    shape: Mapping[str, int] | Shape | None = None,
    method: str = "group_alpha",
    fill: str | None = None,
    alpha: float | str | None = None,
    refit: str = "never",
    text: Texts = None,
    tokens: int | str = TOKENS,
    seed: int = 0,
    progress: Shown = False,
) -> Checkpoint:
    """Makes a model of a size between two models of one architecture and vocabulary, without training.

    Two anchors of a family are mixed as they are. Of two other models the larger is ordered first, and the smaller brought into
    its coordinates.

    Args:
        first: A model: a Hugging Face folder, a GGUF file, a checkpoint, or a model of a family.
        second: The other one; the order of the two does not matter.
        params: How many parameters the model shall have: 88M, or 88_000_000.
        shape: Its lengths instead: layers, hidden, ffn, heads, kv_heads; those left out are the larger model's.
        method: How the two are mixed; docs/method.md says what each method does.
        fill: Of the method, where it has one.
        alpha: Of the method, where it has one: the smaller model's share.
        refit: Whether the FFN's outputs are fitted again: auto or never.
        text: Text by which the models' parts are compared and mixtures are scored; by default text that the larger one writes.
        tokens: How many tokens of it are used, at most.
        seed: Of what is drawn at random: the text, and the method's choice where it makes one.
        progress: True shows what is done; a function is told events.

    Raises:
        ColbuildError: A model cannot be read, no model lies between these two, or an argument is wrong.
    """
    size = checked(Sized, {"name": "interpolate", "params": params, "shape": _axes(shape)})
    wanted = checked(Generate, {"tokens": tokens, "seed": seed})
    drawn = seed if method == "random" else None
    how = checked(
        Interpolate, {"method": method, "fill": fill, "alpha": alpha, "refit": refit, "seed": drawn, "tokens": tokens}
    )
    with listening(progress) as listener:
        scratch = Scratch(listener)
        from colbuild.weights.files.checkpoint import load_facts

        pair = [
            (folder, load_facts(folder))
            for folder in map(scratch.model, (first, second), ("the first model", "the second model"))
        ]
        (larger, above), (smaller, below) = sorted(pair, key=lambda one: -parameters(one[1].structure))
        found = _between(above.structure, below.structure, size)
        inputs, nested = {}, is_nested((larger, above), (smaller, below))
        if not nested:
            from colbuild.ops.align import check_same_words

            check_same_words(smaller, larger)
        if how.reads_text or not nested:
            parts = 1 + FITTED_TEXT if how.refit == "auto" else 1
            inputs["corpus"] = corpus = scratch.corpus(text, larger, parts * wanted.tokens, wanted.seed)
            looked = {"split": SPLIT, "tokens": tokens_in(corpus, parts * wanted.tokens) // parts}
        if not nested:
            larger = scratch.run("order", {"model": larger, **inputs}, looked)
            if how.reads_smaller:
                asked = {"shape": asdict(below.structure.shape), "align": "permute", **looked}
                smaller = scratch.run("align", {"model": smaller, "teacher": larger, **inputs}, asked)
        inputs |= {"larger": larger, "smaller": smaller} if how.reads_smaller else {"larger": larger}
        mixed = {"shape": asdict(found), **how.params(), **(looked if how.reads_text else {})}
        made = scratch.run("interpolate", inputs, mixed)
    return Checkpoint(made, above.structure.at(found), scratch.notes["interpolation"]["best"], scratch)


@python_hints()
def order(
    model: StrPath, *, text: Texts = None, tokens: int | str = TOKENS, seed: int = 0, progress: Shown = False
) -> Checkpoint:
    """The same function with every axis sorted by importance: the first channels, heads and layers are the best part of it.

    Args:
        model: A Hugging Face folder, a GGUF file, a checkpoint, or a model of a family.
        text: Text by which importance is measured; by default text that the model writes.
        tokens: How many tokens of it are used, at most.
        seed: Of the text that it writes.
        progress: True shows what is done; a function is told events.

    Raises:
        ColbuildError: The model cannot be read, or an argument is wrong.
    """
    wanted = checked(Generate, {"tokens": tokens, "seed": seed})
    with listening(progress) as listener:
        scratch = Scratch(listener)
        from colbuild.weights.files.checkpoint import load_facts

        folder = scratch.model(model, "the model")
        corpus = scratch.corpus(text, folder, wanted.tokens, wanted.seed)
        looked = {"split": SPLIT, "tokens": tokens_in(corpus, wanted.tokens)}
        made = scratch.run("order", {"model": folder, "corpus": corpus}, looked)
    return Checkpoint(made, load_facts(made).structure, None, scratch)


def new_folder(to: StrPath) -> Path:
    """A folder that something is to be written to.

    Raises:
        BuildError: It is no path, or there is something already.
    """
    target = as_path(to, "the place to write to").absolute()
    with looked_at("the place to write to"):
        if target.is_symlink():
            raise BuildError(f"{target} is a link", hint="name the folder itself")
        if target.is_dir() and not any(target.iterdir()):
            return target
        there = target.exists()
        above = next(place for place in target.parents if place.exists())
    if not above.is_dir():
        raise BuildError(f"{target} cannot be made: {above} is a file", hint="name a place inside a folder")
    if there:
        raise BuildError(f"{target} is there already", hint="name a folder that does not exist, or remove this one")
    return target


def is_nested(larger: tuple[Path, Facts], smaller: tuple[Path, Facts]) -> bool:
    """Returns whether the smaller of two models is a prefix of the larger one: both come from one AnsNet, ordered once."""
    from colbuild.weights.files.origin import read_origin

    origins = [read_origin(folder) for folder, _ in (larger, smaller)]
    ours, theirs = larger[1].lineage, smaller[1].lineage
    return (
        ours is not None
        and theirs is not None
        and origins[0] is not None
        and origins[0] == origins[1]
        and ours.ranking == theirs.ranking
        and set(theirs.layers) <= set(ours.layers)
    )


def _between(larger: Structure, smaller: Structure, size: Sized) -> Shape:
    """The lengths of a model of a size between two models.

    Raises:
        BuildError: There is none.
    """
    from colbuild.weights.mixing.interpolation import check_kind

    check_kind(larger, smaller)
    if not contains(larger.shape, smaller.shape):
        raise BuildError(
            f"there is no model between these two: {_lengths(smaller.shape)} does not fit inside {_lengths(larger.shape)}",
            hint="the smaller model has at most the larger one's lengths, and as many heads for each kv head",
        )
    ends = parameters(smaller), parameters(larger)
    limits = f"ask for a size from {ends[0]:,} to {ends[1]:,} parameters"
    if size.shape is not None:
        shape = completed(size.shape, larger.shape)
        if reasons := refusals(shape, larger):
            raise BuildError(
                "; ".join(reasons).replace("the AnsNet", "the larger model"),
                hint=f"the larger model has {_lengths(larger.shape)}",
            )
        if not contains(larger.shape, shape) or not contains(shape, smaller.shape):
            raise BuildError(
                f"{_lengths(shape)} is not between the two models",
                hint=f"keep every length between those of {_lengths(smaller.shape)} and {_lengths(larger.shape)}",
            )
        return shape
    assert size.params is not None
    if not ends[0] <= size.params <= ends[1]:
        if ends[0] == ends[1]:
            raise BuildError(
                f"both models have {ends[0]:,} parameters: there is no other size between them",
                hint="give two models of different sizes",
            )
        raise BuildError(
            f"{format_count(size.params)} is not between the two models, which have {format_count(ends[0])} and "
            f"{format_count(ends[1])}",
            hint=limits,
        )
    try:
        return solve_between(larger, larger.shape, smaller.shape, size.params)
    except NoShapeError as error:
        raise BuildError(
            f"there is no model of this size between the two: {error}", hint="ask for another size, or give a shape"
        ) from None


def _axes(shape: Mapping[str, int] | Shape | None) -> Mapping[str, int] | None:
    """The lengths that a shape gives by hand."""
    return requested(shape).model_dump(exclude_none=True) if isinstance(shape, Shape) else shape


def _lengths(shape: Shape) -> str:
    return f"{shape.layers} layers, hidden {shape.hidden}, ffn {shape.ffn}, {shape.heads} heads ({shape.kv_heads} kv)"
