"""Tokenizers as they are published: with tokens that the embedding has no row for, and with orders to cut and pad."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer
from transformers import AutoTokenizer

from colbuild.arch.files.tokenizer_file import load_tokenizer
from colbuild.errors import BuildError
from colbuild.export.package.companions import write_companions
from colbuild.fetch.texts.text_documents import Document
from colbuild.ops.corpus.tokens import load_vocabulary, tokenise
from colbuild.spec.model.device import Device
from colbuild.train.across.spelling import read_spelling
from tests.helpers.steps import run_step
from tests.helpers.tiny import make_tiny_model

TEXT = "Ada paints maps in Aarhus. " * 30
ROWS = 425
IMAGE = "<image_soft_token>"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose embedding has a row for each token of its tokenizer, and no more."""
    folder = make_tiny_model(tmp_path_factory.mktemp("tiny"), layers=1, hidden=48, ffn=32)
    weights = load_file(folder / "model.safetensors")
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"][:ROWS].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    edit(folder / "config.json", lambda config: config.update(vocab_size=ROWS))
    return folder


@pytest.fixture
def raw(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "raw"))


def convert(raw: Path, folder: Path) -> tuple[Path, list[str]]:
    remarks: list[str] = []
    folder.mkdir()
    run_step("source", {"raw": raw}, {}, folder, remark=remarks.append)
    return folder, remarks


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def cutting(path: Path) -> None:
    """Makes a tokenizer cut texts to 16 tokens and pad them to 64, as training scripts leave it."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.enable_truncation(16)
    tokenizer.enable_padding(length=64)
    tokenizer.save(str(path))


def with_token(raw: Path, **names: Any) -> None:
    """Adds a token behind the last row of the embedding, and names it in the files beside tokenizer.json."""
    path = raw / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.add_special_tokens([AddedToken(IMAGE, special=True)])
    assert tokenizer.token_to_id(IMAGE) == ROWS
    tokenizer.save(str(path))
    edit(raw / "tokenizer_config.json", lambda settings: settings.update(names))


def test_orders_to_cut_and_pad_are_reset_when_a_model_is_read(raw: Path, tmp_path: Path) -> None:
    whole = Tokenizer.from_file(str(raw / "tokenizer.json")).encode(TEXT).ids
    cutting(raw / "tokenizer.json")
    folder, remarks = convert(raw, tmp_path / "made")
    assert Tokenizer.from_file(str(folder / "tokenizer.json")).encode(TEXT).ids == whole
    assert (
        Tokenizer.from_file(str(folder / "tokenizer.json")).encode("Ada").ids
        == load_tokenizer(raw / "tokenizer.json").encode("Ada").ids
    )
    assert any("truncate or pad" in remark for remark in remarks)


def test_orders_act_on_no_reader_of_a_tokenizer_and_on_no_package(raw: Path, tmp_path: Path) -> None:
    whole = Tokenizer.from_file(str(raw / "tokenizer.json")).encode(TEXT).ids
    cutting(raw / "tokenizer.json")
    assert load_tokenizer(raw / "tokenizer.json").encode(TEXT).ids == whole
    assert load_vocabulary(raw).tokenizer.encode(TEXT).ids == whole
    assert read_spelling(raw).tokenizer.encode(TEXT).ids == whole
    profile = Device(precision="fp32", context=64)
    write_companions(raw, json.loads((raw / "config.json").read_text()), profile, tmp_path / "package")
    assert Tokenizer.from_file(str(tmp_path / "package" / "tokenizer.json")).encode(TEXT).ids == whole


def test_a_tokenizer_that_fits_is_copied_byte_for_byte(raw: Path, tmp_path: Path) -> None:
    folder, remarks = convert(raw, tmp_path / "made")
    assert (folder / "tokenizer.json").read_bytes() == (raw / "tokenizer.json").read_bytes()
    settings = json.loads((raw / "tokenizer_config.json").read_text("utf-8"))
    assert (folder / "chat_template.jinja").read_text("utf-8") == settings.pop("chat_template"), "a file of its own"
    assert json.loads((folder / "tokenizer_config.json").read_text("utf-8")) == settings
    assert remarks == []


@pytest.mark.parametrize("listed", [False, True], ids=["added only", "in the vocabulary too"])
def test_an_added_token_beyond_the_embedding_is_dropped_and_told(raw: Path, tmp_path: Path, listed: bool) -> None:
    named = {"image_token": IMAGE, "additional_special_tokens": [IMAGE, "<|endoftext|>"], "pad_token": IMAGE}
    named["added_tokens_decoder"] = {str(ROWS): {"content": IMAGE, "special": True}}
    with_token(raw, **named)
    (raw / "added_tokens.json").write_text(json.dumps({IMAGE: ROWS}))
    (raw / "special_tokens_map.json").write_text(json.dumps({"pad_token": {"content": IMAGE}}))
    if listed:
        edit(raw / "tokenizer.json", lambda content: content["model"]["vocab"].update({IMAGE: ROWS}))
    folder, remarks = convert(raw, tmp_path / "made")
    [remark] = remarks
    assert IMAGE in remark and "dropped" in remark
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    assert max(tokenizer.get_vocab(with_added_tokens=True).values()) == ROWS - 1
    loaded = AutoTokenizer.from_pretrained(folder)
    assert loaded.pad_token is None
    assert max(loaded(f"{TEXT} {IMAGE}").input_ids) < ROWS
    assert json.loads((folder / "added_tokens.json").read_text()) == {}
    assert json.loads((folder / "tokenizer_config.json").read_text())["additional_special_tokens"] == ["<|endoftext|>"]


def test_only_a_text_that_spells_a_dropped_token_is_refused(raw: Path, tmp_path: Path) -> None:
    with_token(raw)
    folder, _ = convert(raw, tmp_path / "made")
    vocabulary = load_vocabulary(folder)
    [[tokenised]] = tokenise([Document(TEXT, 0.5, len(TEXT))], vocabulary)
    assert len(tokenised.parts) == 1
    spelled = f"look: {IMAGE}"
    with pytest.raises(BuildError, match=IMAGE) as caught:
        list(tokenise([Document(spelled, 0.5, len(spelled))], vocabulary))
    assert "remove" in (caught.value.hint or "")


def test_a_dropped_token_around_every_text_is_refused(raw: Path, tmp_path: Path) -> None:
    with_token(raw)
    template = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": IMAGE, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {IMAGE: {"id": IMAGE, "ids": [ROWS], "tokens": [IMAGE]}},
    }
    edit(raw / "tokenizer.json", lambda content: content.update(post_processor=template))
    with pytest.raises(BuildError, match="around every text"):
        convert(raw, tmp_path / "made")


def test_a_vocabulary_larger_than_the_embedding_is_refused(raw: Path, tmp_path: Path) -> None:
    edit(raw / "tokenizer.json", lambda content: content["model"]["vocab"].update({"strange": ROWS}))
    with pytest.raises(BuildError, match=f"id {ROWS}"):
        convert(raw, tmp_path / "made")


def test_ids_of_generation_outside_the_vocabulary_are_dropped_and_told(raw: Path, tmp_path: Path) -> None:
    asked = {"eos_token_id": [0, 32_000], "pad_token_id": -1, "bos_token_id": 0, "temperature": 0.7, "max_length": 900}
    (raw / "generation_config.json").write_text(json.dumps(asked))
    folder, remarks = convert(raw, tmp_path / "made")
    found = json.loads((folder / "generation_config.json").read_text())
    assert found == {"eos_token_id": [0], "bos_token_id": 0, "temperature": 0.7, "max_length": 900}
    assert len(remarks) == 2 and "pad_token_id" in "".join(remarks)
