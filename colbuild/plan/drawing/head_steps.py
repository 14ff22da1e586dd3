"""What is drawn before a family's chain: its texts in the tokens of whoever reads them, its vocabulary, and its bridge.

::

    source ansnet ─┬─> corpus ansnet-train ─> order ansnet ─┐
                   ├─> tokenizer ─> corpus train ───────────┴─> bridge ─> order bridge ─> distill a100 …
                   └─> generate train: text that the AnsNet writes, in place of a source

Without a bridge there is one vocabulary, and `corpus train` is in the AnsNet's tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from colbuild.arch import structure_to_json
from colbuild.plan.cost.work import trained_tokens
from colbuild.plan.drawing.draft import SPLIT, Draft, FamilyPath, draw_lessons
from colbuild.plan.drawing.step import Step
from colbuild.plan.drawing.training_params import bridge_recipe_params, settings
from colbuild.plan.shapes.bridge_shape import BRIDGE, Bridged, tokenizer_source
from colbuild.plan.shapes.chain import Chain
from colbuild.spec.model.bridge import TrainedTokenizer
from colbuild.spec.model.family import Data, Family, Generate
from colbuild.spec.sources.formats import detect_format

_MORE: Final = 1.25
"""How much more the AnsNet writes for `seqkd` than the student trains on: they count in other tokens."""


BEGIN: Final[FamilyPath] = ("data", "begin")


def begin_params(family: Family) -> dict[str, Any]:
    """What the spec says that texts begin with, as a parameter; nothing where the tokenizer decides."""
    return {} if family.data.begin is None else {"begin": family.data.begin}


@dataclass(frozen=True)
class Texts:
    """Ids of the steps that make a family's texts.

    Attributes:
        train: To train on, in the family's tokens.
        held: To measure on, in the family's tokens.
        ansnet_train: To train on, in the AnsNet's tokens; the same step where these are the family's.
        ansnet_held: To measure the AnsNet on.
        tokenizer: What makes the family's tokenizer.
    """

    train: str
    held: str
    ansnet_train: str
    ansnet_held: str
    tokenizer: str


def draw_texts(draft: Draft, family: Family, chain: Chain, source: str) -> Texts:
    """Draws the corpora of a family, and before them its tokenizer, if that is not the AnsNet's."""
    if chain.bridge is None or not chain.bridge.across:
        train, held = _pair(draft, family, source, source, "")
        return Texts(train, held, train, held, source)
    tokenizer = _tokenizer(draft, family, chain.bridge, source)
    ours, theirs = (_pair(draft, family, source, cut, name) for cut, name in ((tokenizer, ""), (source, "ansnet-")))
    return Texts(*ours, *theirs, tokenizer)


def draw_order(draft: Draft, family: Family, name: str, model: str, corpus: str) -> str:
    """Draws the step that sorts a model's axes by importance."""
    params = {"tokens": family.order.tokens, "split": family.data.train.split}
    step = Step(f"order {name}", "order", params, inputs={"model": model, "corpus": corpus})
    return draft.add(step, {"": (name,), "tokens": ("order", "tokens"), "split": SPLIT})


def draw_bridge(draft: Draft, family: Family, bridge: Bridged, source: str, texts: Texts) -> dict[str, str]:
    """Draws the bridge, and what it starts from."""
    asked, path = bridge.asked, (BRIDGE,)
    recipe, split = asked.recipe, family.data.train.split
    params: dict[str, Any] = {
        "structure": structure_to_json(bridge.structure),
        "start": asked.start,
        "recipe": bridge_recipe_params(recipe, across=bridge.across),
        "split": split,
    }
    if asked.positions is not None:
        params["positions"] = asked.positions
    inputs = {"teacher": source, "tokenizer": texts.tokenizer, "corpus": texts.train}
    if asked.start == "transplant":
        inputs["teacher"] = draw_order(draft, family, "ansnet", source, texts.ansnet_train)
        inputs["calibration"] = texts.ansnet_train
        params["tokens"] = family.order.tokens
    places: dict[str, FamilyPath] = {"": path, "structure": path, "recipe": (*path, "recipe"), "split": SPLIT}
    places |= {"start": (*path, "start"), "tokens": ("order", "tokens"), "positions": (*path, "positions")}
    if bridge.across and recipe.loss.across == "seqkd":
        wanted = Generate(tokens=round(_MORE * trained_tokens(recipe)), length=recipe.sequence, seed=recipe.seed)
        written = Data(generate=wanted, heldout=0.0)
        inputs["corpus"] = _corpus(
            draft, BRIDGE, written, source, texts.tokenizer, "", (*path, "recipe", "loss", "across")
        )
        params["split"] = "train"
    else:
        inputs |= draw_lessons(draft, recipe, (*path, "recipe"), "ansnet", BRIDGE, inputs, split)
    made = draft.add(Step(BRIDGE, "bridge", params, inputs=inputs, settings=settings(recipe)), places)
    return {BRIDGE: made}


def _tokenizer(draft: Draft, family: Family, bridge: Bridged, source: str) -> str:
    place: FamilyPath = (BRIDGE, "tokenizer")
    uri = tokenizer_source(bridge.asked)
    params: dict[str, Any] = {"rows": bridge.structure.shape.vocab}
    if uri is not None:
        params |= begin_params(family)
        step = Step("tokenizer", "tokenizer", params, inputs={"model": source}, sources={"raw": uri})
        return draft.add(step, {"": place, "begin": BEGIN})
    assert isinstance(bridge.asked.tokenizer, TrainedTokenizer)
    data = family.data.train
    params |= {"train": True, **_text(data)}
    needed, sources = _raw(draft, "train", data, source, ("data", "train"))
    step = Step("tokenizer", "tokenizer", params, inputs={"model": source, **needed}, sources=sources)
    return draft.add(step, {"": place, **{key: ("data", "train", key) for key in _text(data)}})


def _pair(draft: Draft, family: Family, source: str, tokenizer: str, name: str) -> tuple[str, str]:
    """The corpora to train and to measure on, in the tokens of one tokenizer; one step where they are the same text."""
    data = family.data
    train = _corpus(draft, "train", data.train, source, tokenizer, name, ("data", "train"))
    if _what(data.train) == _what(data.eval):
        return train, train
    return train, _corpus(draft, "eval", data.eval, source, tokenizer, name, ("data", "eval"))


def _what(data: Data) -> tuple[Any, ...]:
    return (_text(data), data.content, data.generate)


def _text(data: Data) -> dict[str, Any]:
    """How text is read, as a step's parameters."""
    form = data.format
    if data.generate is not None:
        form = "jsonl"
    elif form == "auto":
        form = detect_format(data.source or "")
    field = data.text if data.generate is None else "text"
    files = {} if data.files is None else {"files": list(data.files)}
    return {"format": form, "text": field, "limit": data.limit, "heldout": data.heldout, **files}


def _corpus(draft: Draft, part: str, data: Data, source: str, tokenizer: str, name: str, place: FamilyPath) -> str:
    params = _text(data)
    needed, sources = _raw(draft, part, data, source, place)
    step = Step(f"corpus {name}{part}", "corpus", params, inputs={"tokenizer": tokenizer, **needed}, sources=sources)
    return draft.add(step, {"": place, **{key: (*place, key) for key in params}})


def _raw(draft: Draft, part: str, data: Data, source: str, place: FamilyPath) -> tuple[dict[str, str], dict[str, str]]:
    """Where a text comes from: (inputs, sources) of who reads it."""
    if data.generate is None:
        return {}, {"raw": data.content or ""}
    return {"raw": _generated(draft, part, data.generate, source, (*place, "generate"))}, {}


def _generated(draft: Draft, name: str, wanted: Generate, source: str, place: FamilyPath) -> str:
    """Text that the AnsNet writes."""
    params = wanted.model_dump(mode="json")
    step = Step(f"generate {name}", "generate", params, inputs={"model": source})
    return draft.add(step, {"": place, **{key: (*place, key) for key in params}})
