"""corpus: text in many formats to packed token ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from colbuild.plan.drawing.draft import Draft, FamilyPath
from colbuild.plan.drawing.step import Step
from colbuild.plan.operation import TOKENIZER, Operation, Params, Scene, Work
from colbuild.plan.steps import generate
from colbuild.plan.workload.model_memory import STREAMED, TOKEN
from colbuild.spec.model.family import Data, Family
from colbuild.spec.sources.formats import AUTO, FORMATS, JSONL, detect_format

META: Final = "corpus.json"
"""The file of a packed corpus that says how much the corpus holds."""

SPLITS: Final[Mapping[str, tuple[str, ...]]] = {
    "train": ("train",),
    "heldout": ("heldout",),
    "all": ("train", "heldout"),
}
"""Split of a corpus that a step asks for -> the files that it is made of."""

_ROW_GROUP: Final = 105_000_000
"""Memory that reading a text in columns takes."""


@dataclass(frozen=True)
class CorpusParams(Params):
    """Parameters of `corpus`.

    Attributes:
        format: The text's format, or "auto".
        text: The field that holds the text.
        limit: Bytes of text at most; None for all of it.
        heldout: The share of documents that is held out.
        files: Globs of the files that are meant; empty for all.
    """

    format: str
    text: str
    limit: int | None
    heldout: float
    files: tuple[str, ...] = ()


def draw_pair(draft: Draft, family: Family, source: str, tokenizer: str, name: str) -> tuple[str, str]:
    """Draws the corpora to train and to measure on, in the tokens of one tokenizer; one step where they are the same text.

    Args:
        draft: Where they are drawn.
        family: The family.
        source: The step that makes the AnsNet.
        tokenizer: The step that makes the tokenizer.
        name: What their names begin with.
    """
    data = family.data
    train = draw(draft, f"{name}train", data.train, source, tokenizer, ("data", "train"))
    if _content(data.train) == _content(data.eval):
        return train, train
    return train, draw(draft, f"{name}eval", data.eval, source, tokenizer, ("data", "eval"))


def draw(draft: Draft, name: str, data: Data, source: str, tokenizer: str, place: FamilyPath) -> str:
    """Draws a corpus, and before it the text that the AnsNet writes for it, if it does."""
    params = text_params(data)
    needed, sources = raw_text(draft, name.removeprefix("ansnet-"), data, source, place)
    step = Step("corpus", name, params, inputs={"tokenizer": tokenizer, **needed}, sources=sources)
    return draft.add(step, {"": place, **{key: (*place, key) for key in params}})


def text_params(data: Data) -> dict[str, Any]:
    """Returns the reading of a text as parameters of a step."""
    form = data.format
    if data.generate is not None:
        form = JSONL
    elif form == AUTO:
        form = detect_format(data.source or "")
    field = data.text if data.generate is None else "text"
    files = {} if data.files is None else {"files": list(data.files)}
    return {"format": form, "text": field, "limit": data.limit, "heldout": data.heldout, **files}


def raw_text(
    draft: Draft, name: str, data: Data, source: str, place: FamilyPath
) -> tuple[dict[str, str], dict[str, str]]:
    """Returns the inputs and sources of the step that reads a text."""
    if data.generate is None:
        return {}, {"raw": data.content or ""}
    return {"raw": generate.draw(draft, name, data.generate, source, (*place, "generate"))}, {}


def packing_memory(form: str, rows: int) -> int:
    """Memory of packing a text, which passes through in pieces.

    Args:
        form: The text's format.
        rows: Tokens of the vocabulary; 0 where that is not known.
    """
    return STREAMED + TOKEN * rows + (_ROW_GROUP if form in FORMATS and FORMATS[form].columns else 0)


def _content(data: Data) -> tuple[Any, ...]:
    return (text_params(data), data.content, data.generate)


def _work(params: CorpusParams, scene: Scene) -> Work:
    # Some four bytes of text make a token of four bytes at most.
    return Work(None, params.limit, params.limit, packing_memory(params.format, scene.vocabulary("tokenizer")))


CORPUS: Final = Operation(
    op="corpus",
    epoch=1,
    params=CorpusParams,
    module="colbuild.ops.corpus.build",
    work=_work,
    title=lambda _: "the corpus",
    reads={"tokenizer": (TOKENIZER,)},
    byte_share=0.08,  # 1.1 and 1.7 MB/s of text, 2 runs, one beside another step
    size_by_text=True,
)
