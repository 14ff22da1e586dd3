"""Sizes of a family's texts before they are read, and the values that need more text than there is.

::

    corpus in the store      its tokens are known                          more is an error
    a file of known size     a token stands for a byte or more             more tokens than bytes is an error
                             usual text has four bytes a token             more tokens than that is a warning
    a compressed file        the text has more bytes than the file         a warning, where it is far too small
    generated                as many tokens as were asked for              more is a warning
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from colbuild.plan.changes.states import State, StepPlan
from colbuild.plan.drawing.build_graph import BuildGraph
from colbuild.plan.drawing.step import Step
from colbuild.plan.steps.corpus import SPLITS
from colbuild.plan.steps.interpolate import chosen_on_read_text
from colbuild.plan.steps.operations import OPERATIONS
from colbuild.spec import LoadedFamily, Problem
from colbuild.spec.model.family import is_another_text
from colbuild.spec.text.places import Path
from colbuild.units import format_bytes, format_count

USUAL: Final = 4.0
"""Bytes of usual text that a token stands for; in English 3.5 to 4.5, in other languages less."""

UNPACKED: Final = 4
"""How many times larger than its compressed file a usual text is, at most."""


@dataclass(frozen=True)
class Counts:
    """Counts of one side of a packed corpus."""

    documents: int
    tokens: int
    bytes: int


@dataclass(frozen=True)
class Known:
    """The known facts of a corpus.

    Attributes:
        step: The step that packs it.
        name: What messages call its text.
        counts: What each side of it holds, if it is in the store.
        most: Bytes of text at most; None if nothing tells.
        likely: Tokens that it is likely to have, if nothing tells how many; None if nothing tells that either.
        size: Bytes of its files, up to the limit; None if they are not known.
        heldout: The share of documents held out.
    """

    step: str
    name: str
    counts: Mapping[str, Counts] | None
    most: int | None
    likely: int | None
    size: int | None
    heldout: float

    def tokens(self, split: str) -> int | None:
        """The number of tokens; None if unknown."""
        return None if self.counts is None else sum(self.counts[part].tokens for part in SPLITS[split])

    def expected(self, split: str) -> int | None:
        """The probable number of tokens; None if unknown."""
        share = {"train": 1.0 - self.heldout, "heldout": self.heldout}.get(split, 1.0)
        return None if self.likely is None else round(self.likely * share)

    @property
    def told(self) -> str:
        """The text in one line, for the plan."""
        if self.counts is not None:
            whole = [
                sum(getattr(part, name) for part in self.counts.values()) for name in ("bytes", "documents", "tokens")
            ]
            return f"{self.name}: {format_bytes(whole[0])}, {whole[1]:,} documents, {format_count(whole[2])} tokens"
        size = "" if self.size is None else f"{format_bytes(self.size)}, "
        tokens = "of unknown size" if self.likely is None else f"about {format_count(self.likely)} tokens"
        return f"{self.name}: {size}{tokens}"


@dataclass(frozen=True)
class _Need:
    """Tokens that a step reads of a corpus.

    Attributes:
        step: The step.
        corpus: The step that packs the corpus.
        split: The side of it.
        tokens: How many.
        window: In windows of how many.
        path: Of the value that asks for them.
        otherwise: What else there is to do than to ask for fewer.
        required: Whether the step fails where there are fewer; else it makes do with what there is.
    """

    step: str
    corpus: str
    split: str
    tokens: int
    window: int
    path: Path
    otherwise: str = ""
    required: bool = True

    def fits(self, tokens: int) -> bool:
        """Returns whether a corpus of so many tokens has enough; see `colbuild.train.corpus.packing.window_count`."""
        if not self.required:
            return tokens >= self.tokens
        window = min(self.window, max(1, tokens - 1))
        return tokens > 1 and (tokens - 1) // window >= self.tokens // window


def known_texts(
    steps: Sequence[StepPlan],
    loaded: LoadedFamily,
    size: Callable[[str, Mapping[str, Any]], tuple[int, bool] | None],
    meta: Callable[[str], Any],
) -> dict[str, Known]:
    """Id of each step that packs a corpus -> what is known of it.

    Args:
        steps: The family's steps, and what each is going to do.
        loaded: The family.
        size: (URI, how it is read) -> bytes of its files and whether any is compressed; None if that is not known without
            fetching it.
        meta: Digest of a corpus in the store -> what its `corpus.json` says; None if it cannot be read.
    """
    by_id = {plan.step.id: plan for plan in steps}
    found = {}
    for plan in steps:
        if plan.step.op == "corpus":
            found[plan.step.id] = _known(plan, by_id, size, meta)
    return found


def text_problems(
    graph: BuildGraph, steps: Sequence[StepPlan], texts: Mapping[str, Known], loaded: LoadedFamily
) -> tuple[list[Problem], list[Problem]]:
    """Steps that ask for more text than there is: (those that cannot end well, those that are likely not to).

    Args:
        graph: The steps.
        steps: What each is going to do; what is in the store asks for nothing.
        texts: Step -> what is known of the corpus that it packs.
        loaded: The family.
    """
    errors: list[Problem] = []
    warnings: list[Problem] = []
    for plan in steps:
        if plan.state is State.CACHED:
            continue
        for need in _needs(plan.step, graph):
            text = texts.get(need.corpus)
            if text is None:
                continue
            if need.split == "heldout" and not text.heldout:
                errors.append(_nothing_held(text, graph, loaded))
            elif need.required or need.path in loaded.places.known:
                # The default of a step that makes do with less is as many as there are, up to a bound.
                _judge(need, text, loaded, errors, warnings)
    warnings += _chosen_on_read_text(steps, graph, loaded)
    return list(dict.fromkeys(errors)), list(dict.fromkeys(warnings))


def _chosen_on_read_text(steps: Sequence[StepPlan], graph: BuildGraph, loaded: LoadedFamily) -> Iterator[Problem]:
    """A warning where anchors are trained on the text by which their mixtures are chosen."""
    data = loaded.family.data.train
    pending = [plan.step for plan in steps if plan.state is not State.CACHED]
    if not chosen_on_read_text(data) or not any(
        step.op == "interpolate" and "corpus" in step.inputs for step in pending
    ):
        return
    key = "split" if data.heldout else "heldout"
    place = loaded.places.nearest(("data", "train", key))
    told = "mixtures are chosen on text that anchors are trained on: of one that knows it by heart too much is taken"
    hint = "write split: train" if data.heldout else "hold out a share of the documents: heldout: 0.02"
    yield Problem(place, told, hint)


def _nothing_held(text: Known, graph: BuildGraph, loaded: LoadedFamily) -> Problem:
    """A family that measures on documents that are kept out of training, and keeps none out."""
    place = loaded.places.nearest(graph.origins[text.step]["heldout"])
    data, own = loaded.family.data, "or give 'eval' a 'source' of its own, "
    has_own = is_another_text(data.eval, data.train)
    hint = f"hold out a share of the documents, such as heldout: 0.02, {'' if has_own else own}or write 'split: all' in 'eval'"
    return Problem(place, "'heldout' is 0, so there are no documents for evaluation", hint)


def text_bytes(texts: Mapping[str, Known]) -> dict[str, int]:
    """Id of each step that packs a corpus -> bytes of text that it reads, where these are known."""
    sizes = {}
    for step, text in texts.items():
        size = text.size if text.counts is None else sum(counts.bytes for counts in text.counts.values())
        if size is not None:
            sizes[step] = size
    return sizes


def _known(
    plan: StepPlan,
    by_id: Mapping[str, StepPlan],
    size: Callable[[str, Mapping[str, Any]], tuple[int, bool] | None],
    meta: Callable[[str], Any],
) -> Known:
    step, limit = plan.step, plan.step.params["limit"]
    counts = None if plan.output is None else _counts(meta(plan.output))
    uri, heldout = step.sources.get("raw"), float(step.params["heldout"])
    if uri is None:
        written = by_id[step.inputs["raw"]].step.params["tokens"]
        likely = written if limit is None else min(written, round(limit / USUAL))
        return Known(step.id, "the generated text", counts, limit, likely, None, heldout)
    files = None if counts is not None else size(uri, step.params)
    if files is None:
        return Known(step.id, uri, counts, limit, None if limit is None else round(limit / USUAL), limit, heldout)
    found, packed = files
    most = limit if packed else found if limit is None else min(found, limit)
    usual = found * UNPACKED if packed else found
    usual = usual if limit is None else min(usual, limit)
    return Known(step.id, uri, counts, most, round(usual / USUAL), min(found, limit or found), heldout)


def _counts(meta: Any) -> dict[str, Counts] | None:
    try:
        return {
            name: Counts(
                int(meta["splits"][name]["documents"]),
                int(meta["splits"][name]["tokens"]),
                int(meta["splits"][name]["bytes"]),
            )
            for name in SPLITS["all"]
        }
    except (KeyError, TypeError, ValueError, OverflowError):
        return None  # written by another version of colbuild


def _judge(need: _Need, text: Known, loaded: LoadedFamily, errors: list[Problem], warnings: list[Problem]) -> None:
    key = need.path[-1]
    place, asked = loaded.places.nearest(need.path), f"'{key}' needs {need.tokens:,} tokens"
    hint = f"give more text, or ask for fewer '{key}'{need.otherwise}"
    tokens, expected = text.tokens(need.split), text.expected(need.split)
    if tokens is not None:
        if not need.fits(tokens):
            has = f"the {need.split} split of {text.name} has {tokens:,}"
            if need.required:
                errors.append(Problem(place, f"{asked}, and {has}", hint))
            else:
                warnings.append(Problem(place, f"{asked}, and {has}, so fewer are read", hint))
    elif need.required and text.most is not None and not need.fits(text.most + 1):
        has = f"{text.name} has at most {text.most:,} bytes of text, and a token stands for at least one"
        errors.append(Problem(place, f"{asked}: {has}", hint))
    elif expected is not None and not need.fits(expected):
        has = f"the {need.split} split of {text.name} probably has about {format_count(expected)}"
        what = "the build fails" if need.required else "fewer are read"
        warnings.append(Problem(place, f"{asked}: {has}, and {what} if it has no more", hint))


# -- who reads how much -----------------------------------------------------------------------------------------------

_ALLOW: Final = ", or write epochs: allow to read it again"


def _needs(step: Step, graph: BuildGraph) -> Iterator[_Need]:
    params, origins = OPERATIONS[step.op].params.read(step.params), graph.origins[step.id]
    for need in params.texts(step.inputs):
        if need.repeats and step.settings.get("epochs", "once") != "once":
            continue
        first, *rest = need.path
        yield _Need(
            step.id,
            step.inputs[need.role],
            step.params["split"],
            need.tokens,
            need.window,
            (*origins[first], *rest),
            _ALLOW if need.repeats else "",
            need.required,
        )
