"""tokenizer: the family's own vocabulary, trained on its text or fetched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from colbuild.plan.drawing.draft import Draft
from colbuild.plan.drawing.step import Step
from colbuild.plan.operation import CHAT, CONFIG, TEXTS, TOKENIZER, Operation, Params, Scene, Work
from colbuild.plan.shapes.bridge_shape import BRIDGE, Bridged, tokenizer_source
from colbuild.plan.shapes.package_size import tokenizer_bound
from colbuild.plan.steps.corpus import packing_memory, raw_text, text_params
from colbuild.plan.steps.source import BEGIN, begin_params
from colbuild.spec.model.bridge import TrainedTokenizer
from colbuild.spec.model.family import Family

_WORDS: Final = 20_000_000
"""Memory for words and pairs of a tokenizer that is trained."""

_OTHER_TOKEN: Final = 1780
"""Bytes that a tokenizer has in memory for each of its tokens while a new tokenizer takes over its settings."""


@dataclass(frozen=True)
class TokenizerParams(Params):
    """Parameters of `tokenizer`.

    Attributes:
        rows: Ids that the family's models know.
        begin: For a tokenizer that is fetched, the token that texts begin with; None where the tokenizer decides.
        train: Whether it is trained on the family's text. How that text is read, as in `CorpusParams`:
        format: Its format; empty for a tokenizer that is fetched.
        text: Its field.
        limit: Bytes of it at most.
        heldout: The share of its documents that is held out.
        files: Globs of its files.
    """

    rows: int
    begin: str | None = None
    train: bool = False
    format: str = ""
    text: str = "text"
    limit: int | None = None
    heldout: float = 0.0
    files: tuple[str, ...] = ()


def draw(draft: Draft, family: Family, bridge: Bridged, source: str) -> str:
    """Draws the tokenizer of a family whose bridge has another vocabulary than the AnsNet."""
    place = (BRIDGE, "tokenizer")
    uri = tokenizer_source(bridge.asked)
    params: dict[str, Any] = {"rows": bridge.structure.shape.vocab}
    if uri is not None:
        params |= begin_params(family)
        step = Step("tokenizer", "", params, inputs={"model": source}, sources={"raw": uri})
        return draft.add(step, {"": place, "begin": BEGIN})
    assert isinstance(bridge.asked.tokenizer, TrainedTokenizer)
    data = family.data.train
    params |= {"train": True, **text_params(data)}
    needed, sources = raw_text(draft, "train", data, source, ("data", "train"))
    step = Step("tokenizer", "", params, inputs={"model": source, **needed}, sources=sources)
    return draft.add(step, {"": place, **{key: ("data", "train", key) for key in text_params(data)}})


def _work(params: TokenizerParams, scene: Scene) -> Work:
    """The words of a text, counted, the pairs that they are made of, and the AnsNet's tokenizer."""
    size = params.limit if params.train else 1
    memory = packing_memory(params.format, 0) + _WORDS + _OTHER_TOKEN * scene.vocabulary("model")
    return Work(None, size, tokenizer_bound(params.rows), memory)


TOKENIZER_STEP: Final = Operation(
    op="tokenizer",
    epoch=3,
    params=TokenizerParams,
    module="colbuild.ops.tokenizer",
    work=_work,
    title=lambda _: "the tokenizer",
    reads={"model": (CONFIG, TOKENIZER, CHAT, TEXTS)},
    byte_share=0.3,  # counts words and merges them; no run
    size_by_text=True,
)
