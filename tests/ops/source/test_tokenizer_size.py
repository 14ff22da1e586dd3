"""The size of a package's tokenizer, told from a source's files before anything is built."""

from __future__ import annotations

import json

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from colbuild.arch.files.gguf_header import ArrayValue, GGUFHeader
from colbuild.arch.files.tokenizer_size import tokenizer_bytes
from colbuild.export.package.companions import _shorten
from colbuild.ops.source.source_tokenizer import copy_tokenizer

TEXT = ["The harbour was empty, and the lamp by the sea had gone out long before the first ship came in. " * 20]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tokenizer of bytes, as transformers writes it and as GPT-2's two files."""
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=340, initial_alphabet=alphabet))
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "older").mkdir()
    tokenizer.model.save(str(folder / "older"))
    return folder


def in_a_package(source, output):
    """Bytes of tokenizer.json in a package of a source."""
    output.mkdir(parents=True)
    copy_tokenizer(source, output)
    _shorten(output / "tokenizer.json")
    return (output / "tokenizer.json").stat().st_size


def test_a_tokenizer_json_is_counted_without_its_spaces(folder, tmp_path):
    size = in_a_package(folder, tmp_path / "package")
    assert tokenizer_bytes(folder) == tokenizer_bytes(folder / "tokenizer.json") == size
    assert size < (folder / "tokenizer.json").stat().st_size


def test_gpt2s_two_files_are_counted_as_what_is_made_of_them(folder, tmp_path):
    size = in_a_package(folder / "older", tmp_path / "package")
    assert size <= tokenizer_bytes(folder / "older") <= size + 70_000


def test_a_gguf_file_is_counted_by_its_words(folder, tmp_path, monkeypatch):
    content = json.loads((folder / "tokenizer.json").read_text())["model"]
    merges = [" ".join(merge) if isinstance(merge, list) else merge for merge in content["merges"]]
    arrays = {
        f"tokenizer.ggml.{name}": ArrayValue(len(texts), sum(8 + len(text.encode()) for text in texts))
        for name, texts in (("tokens", list(content["vocab"])), ("merges", merges))
    }
    module = "colbuild.arch.files.tokenizer_size"
    monkeypatch.setattr(f"{module}.gguf_parts", lambda raw: (raw,))
    monkeypatch.setattr(f"{module}.read_header", lambda parts: GGUFHeader(parts, arrays, {}))
    size = in_a_package(folder, tmp_path / "package")
    assert size <= tokenizer_bytes(tmp_path / "model.gguf") <= size + 70_000
    arrays.pop("tokenizer.ggml.merges")
    assert tokenizer_bytes(tmp_path / "model.gguf") is None, "merges that are worked out of pieces cannot be counted"


def test_what_is_no_tokenizer_tells_nothing(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{")
    assert tokenizer_bytes(tmp_path) is None
