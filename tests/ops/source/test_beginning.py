"""What texts begin with, settled in the source step: as `tokenizer(text)` in transformers has it, or as the spec says."""

from __future__ import annotations

import json

import pytest
from transformers import AutoTokenizer

from colbuild.arch.files.tokenizer_file import load_tokenizer
from colbuild.errors import BuildError
from colbuild.ops.source.settled_beginning import carry_beginning, settle_beginning, write_beginning
from colbuild.train.corpus.text_beginning import beginning, text_ids
from colbuild.weights.files.checkpoint import write_json
from colbuild.weights.files.origin import Origin, origin_json, read_origin
from tests.helpers.beginnings import BOS, beginning_with, change_tokenizer, template
from tests.helpers.tiny import SEPARATOR
from tests.ops.corpus.helpers import tokenizer_folder


def plain(tmp_path, **settings):
    folder = beginning_with(tokenizer_folder(), tmp_path / "tokenizer")
    change_tokenizer(folder, settings, post_processor=None)
    return folder


def with_template(tmp_path, **settings):
    folder = beginning_with(tokenizer_folder(), tmp_path / "tokenizer")
    return change_tokenizer(folder, settings)


def sequence_of_two(tmp_path, **settings):
    """As llama-3's: byte-level offsets, then the template."""
    folder = beginning_with(tokenizer_folder(), tmp_path / "tokenizer")
    index = load_tokenizer(folder / "tokenizer.json").token_to_id(BOS)
    offsets = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
    parts = {"type": "Sequence", "processors": [offsets, template(BOS, index)]}
    return change_tokenizer(folder, settings, post_processor=parts)


KINDS = [plain, with_template, sequence_of_two]
FLAGS = [
    {},
    {"add_bos_token": True},
    {"add_bos_token": False},
    {"add_bos_token": None},
    {"add_bos_token": True, "bos_token": {"__type": "AddedToken", "content": SEPARATOR}},
    {"add_bos_token": True, "bos_token": None},
    {"add_eos_token": False},
    {"add_bos_token": True, "add_eos_token": True},
]
RULES_OF_THEIR_OWN = [
    # Builds its post-processor from the flags alone, and does not read them where there is a tokenizer.json.
    {"tokenizer_class": "GPTNeoXTokenizerFast"},
    {"tokenizer_class": "GPTNeoXTokenizerFast", "add_bos_token": True},
]


def by_transformers(folder):
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)("Ada builds")["input_ids"]


@pytest.mark.parametrize("settings", [*FLAGS, *RULES_OF_THEIR_OWN], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_the_tokenizer_alone_says_what_transformers_puts_in_front(tmp_path, kind, settings):
    folder = kind(tmp_path, **settings)
    expected = by_transformers(folder)
    names = settle_beginning(folder, None)
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    assert [tokenizer.token_to_id(name) for name in names] == list(beginning(tokenizer))
    ours = text_ids(tokenizer, "Ada builds")
    assert expected[: len(ours)] == ours
    assert by_transformers(folder) == expected
    assert settle_beginning(folder, None) == names


@pytest.mark.parametrize("asked", [BOS, SEPARATOR, "none"])
@pytest.mark.parametrize("settings", [*FLAGS[:3], *RULES_OF_THEIR_OWN], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_the_spec_overrules_the_tokenizer(tmp_path, kind, settings, asked):
    folder = kind(tmp_path, **settings)
    names = settle_beginning(folder, asked)
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    assert names == (() if asked == "none" else (asked,))
    assert by_transformers(folder) == text_ids(tokenizer, "Ada builds")
    assert tuple(tokenizer.id_to_token(index) for index in beginning(tokenizer)) == names


def test_a_tokenizer_that_adds_nothing_stays_as_it_is(tmp_path):
    folder = beginning_with(tokenizer_folder(), tmp_path / "tokenizer")
    change_tokenizer(folder, post_processor=None)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert settle_beginning(folder, None) == ()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_token_that_is_not_there_is_named_with_those_that_are(tmp_path):
    with pytest.raises(BuildError, match="no token '<bos>'") as caught:
        settle_beginning(plain(tmp_path), "<bos>")
    assert caught.value.hint == f"its special tokens are {SEPARATOR}"


def test_a_new_tokenizer_takes_over_the_beginning(tmp_path):
    theirs = with_template(tmp_path / "theirs")
    ours = plain(tmp_path / "ours")
    assert carry_beginning(theirs, ours) == (BOS,)
    assert beginning(load_tokenizer(ours / "tokenizer.json")) == beginning(load_tokenizer(theirs / "tokenizer.json"))
    assert carry_beginning(plain(tmp_path / "none"), ours) == ()
    assert beginning(load_tokenizer(ours / "tokenizer.json")) == ()


def test_what_was_asked_holds_for_releases_of_transformers_that_add_a_bos_by_default(tmp_path):
    folder = with_template(tmp_path)
    settle_beginning(folder, "none")
    assert json.loads((folder / "tokenizer_config.json").read_text())["add_bos_token"] is False


def test_where_a_model_comes_from_is_told_with_the_beginning_of_its_own_tokenizer(tmp_path):
    folder = with_template(tmp_path)
    write_beginning(folder)
    assert not (folder / "origin.json").exists()
    write_json(folder / "origin.json", origin_json(Origin("0" * 64, None, ("<|endoftext|>",))))
    write_beginning(folder)
    origin = read_origin(folder)
    assert origin is not None and list(origin.begin) == [BOS]
