"""The family's own vocabulary, with what the AnsNet's chat needs."""

from __future__ import annotations

import json
import shutil

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from colbuild.arch.files.vocabulary import read_vocabulary
from colbuild.errors import BuildError
from colbuild.hashing import scan_tree
from colbuild.ops.source.settled_beginning import beginning_names
from colbuild.ops.tokenizer import special_ids
from tests.helpers.beginnings import BOS, beginning_with
from tests.helpers.tiny import SEPARATOR, make_tiny_tokenizer
from tests.ops.bridges import ROWS, TEXT, chatting, done, raw
from tests.ops.family import room

TRAIN = {"rows": ROWS, "train": True, **TEXT}
CHAT = [{"role": "user", "content": "Who builds ships?"}]


def facts(folder, name="tokenizer_config.json"):
    return json.loads((folder / name).read_text(encoding="utf-8"))


def test_a_trained_one_has_the_asked_size_and_the_same_bytes_again():
    first, second = (done("tokenizer", {"model": chatting(), "raw": raw()}, TRAIN, name) for name in ("one", "two"))
    assert scan_tree(first) == scan_tree(second)
    assert read_vocabulary(first) == ROWS
    tokenizer = Tokenizer.from_file(str(first / "tokenizer.json"))
    assert tokenizer.decode(tokenizer.encode("Ärger 🙂\n\n x").ids) == "Ärger 🙂\n\n x"


def test_what_the_chat_is_made_of_is_carried_over_and_nothing_else():
    found = done("tokenizer", {"model": chatting(), "raw": raw()}, TRAIN, "chats")
    special = {token["content"] for token in facts(found, "tokenizer.json")["added_tokens"]}
    assert special == {SEPARATOR, "<|start|>", "<|stop|>"}
    assert facts(found)["eos_token"] == "<|stop|>"
    ours, theirs = (AutoTokenizer.from_pretrained(folder) for folder in (found, chatting()))
    assert ours.apply_chat_template(CHAT, tokenize=False) == theirs.apply_chat_template(CHAT, tokenize=False)
    stop = ours.convert_tokens_to_ids("<|stop|>")
    assert special_ids(found)["eos_token_id"] == stop
    # Settings of generation name the same tokens by their new ids.
    assert facts(found, "generation_config.json") == {
        "eos_token_id": [stop, ours.convert_tokens_to_ids(SEPARATOR)],
        "pad_token_id": stop,
        "temperature": 0.7,
    }


def test_held_out_text_stays_out_of_the_vocabulary():
    whole = done("tokenizer", {"model": chatting(), "raw": raw()}, {**TRAIN, "heldout": 0.0}, "whole")
    part = done("tokenizer", {"model": chatting(), "raw": raw()}, {**TRAIN, "heldout": 0.9}, "part")
    assert facts(whole, "tokenizer.json")["model"]["vocab"] != facts(part, "tokenizer.json")["model"]["vocab"]


def test_a_vocabulary_larger_than_the_text_has_words_for_says_what_would_do():
    with pytest.raises(BuildError) as caught:
        done("tokenizer", {"model": chatting(), "raw": raw()}, {**TRAIN, "rows": 20_000}, "huge")
    assert "too short for a vocabulary of 20,000 tokens" in caught.value.message
    assert "tokenizer: {train: " in caught.value.hint


def other(name, change=None):
    """The tiny tokenizer's folder, without a chat template of its own."""
    folder = room() / name
    shutil.rmtree(folder, ignore_errors=True)
    make_tiny_tokenizer(folder)
    settings = {key: value for key, value in facts(folder).items() if key != "chat_template"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    if change:
        change(folder)
    return folder


def test_one_from_elsewhere_gets_the_special_tokens_that_it_lacks():
    found = done("tokenizer", {"model": chatting(), "raw": other("elsewhere")}, {"rows": 576}, "copied")
    assert read_vocabulary(found) == 427
    assert facts(found)["eos_token"] == "<|stop|>"


def test_one_with_a_chat_of_its_own_is_left_as_it_is():
    own = room() / "own"
    make_tiny_tokenizer(own)
    found = done("tokenizer", {"model": chatting(), "raw": own}, {"rows": 576}, "own-copied")
    assert (found / "tokenizer.json").read_bytes() == (own / "tokenizer.json").read_bytes()


def test_one_without_room_for_the_chat_is_refused():
    with pytest.raises(BuildError, match="and room for 426"):
        done("tokenizer", {"model": chatting(), "raw": other("full")}, {"rows": 426}, "no-room")


def test_gpt2s_two_files_are_a_tokenizer():
    def two_files(folder):
        Tokenizer.from_file(str(folder / "tokenizer.json")).model.save(str(folder))
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (folder / name).unlink()

    folder = other("merges", two_files)
    assert read_vocabulary(folder) == 425
    found = done("tokenizer", {"model": chatting(), "raw": folder}, {"rows": 576}, "merged")
    tokenizer = Tokenizer.from_file(str(found / "tokenizer.json"))
    assert tokenizer.decode(tokenizer.encode("Ada visits Zürich").ids) == "Ada visits Zürich"


def test_a_single_file_is_a_tokenizer_and_another_file_is_none(tmp_path):
    single = other("single") / "tokenizer.json"
    assert read_vocabulary(single) == 425
    done("tokenizer", {"model": chatting(), "raw": single}, {"rows": 576}, "single-copied")
    (tmp_path / "words.txt").write_text("a b c", encoding="utf-8")
    with pytest.raises(BuildError, match=r"words\.txt is not a tokenizer"):
        done("tokenizer", {"model": chatting(), "raw": tmp_path / "words.txt"}, {"rows": 576}, "refused")
    for content, message in (
        ("{", "it is not JSON"),
        ("[]", "it is not a JSON object"),
        ("{}", "is missing or of another form"),
    ):
        (tmp_path / "tokenizer.json").write_text(content, encoding="utf-8")
        with pytest.raises(BuildError, match=message):
            read_vocabulary(tmp_path)


def test_a_trained_one_begins_texts_as_the_ansnet_does(tmp_path):
    model = beginning_with(chatting(), tmp_path / "model")
    folder = done("tokenizer", {"model": model, "raw": raw()}, TRAIN, "begun")
    assert beginning_names(folder) == beginning_names(model) == (BOS,)


def test_a_fetched_one_begins_texts_by_its_own_rule_or_as_the_spec_says(tmp_path):
    model = beginning_with(chatting(), tmp_path / "model")

    def begins(begin=None):
        params = {"rows": 2000} | ({} if begin is None else {"begin": begin})
        return beginning_names(done("tokenizer", {"model": model, "raw": other("own")}, params, "fetched"))

    assert begins() == ()
    assert begins(BOS) == (BOS,)
    assert begins("none") == ()
    assert begins("<not there>") == ()


def test_a_fetched_one_that_begins_texts_is_another_result_and_names_its_own_bos(tmp_path):
    fetched = beginning_with(other("plain"), tmp_path / "fetched")
    inputs = {"model": chatting(), "raw": fetched}
    folder = done("tokenizer", inputs, {"rows": 2000}, "begun-fetched")
    # A store that has its corpora from before they began with it must not find them again.
    assert json.loads((folder / "beginning.json").read_text()) == {"begin": [BOS]}
    assert json.loads((folder / "tokenizer_config.json").read_text())["bos_token"] == BOS
    assert special_ids(folder)["bos_token_id"] == Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id(BOS)
    folder = done("tokenizer", inputs, {"rows": 2000, "begin": "none"}, "begun-fetched")
    assert not (folder / "beginning.json").exists()
