"""The corpus step as a whole."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from tokenizers import Tokenizer

from colbuild.fetch.texts.text_documents import Document
from colbuild.ops.corpus.tokens import load_vocabulary, tokenise
from tests.helpers.tiny import SEPARATOR, tiny_documents
from tests.ops.corpus.helpers import build, failure, files, packed_texts, tokenizer_folder


def write_documents(path, documents):
    path.write_text("\n\n\n".join(documents), encoding="utf-8")
    return path


def test_every_document_comes_back_with_its_text_and_bytes(tmp_path):
    documents = tiny_documents()
    out = build(write_documents(tmp_path / "c.txt", documents), tmp_path / "out")
    assert packed_texts(out) == documents
    meta = json.loads((out / "corpus.json").read_text())
    assert meta["splits"]["train"]["bytes"] == sum(len(text.encode()) for text in documents)
    assert meta["splits"]["train"]["documents"] == len(documents)
    assert meta["vocabulary"] == len(json.loads((tokenizer_folder() / "tokenizer.json").read_text())["model"]["vocab"])
    assert meta["separator"] == 0
    assert not meta["limit_reached"]


def test_same_inputs_give_the_same_bytes(tmp_path):
    raw = write_documents(tmp_path / "c.txt", tiny_documents())
    first = build(raw, tmp_path / "a", heldout=0.1)
    assert files(first) == files(build(raw, tmp_path / "b", heldout=0.1))
    assert sorted(files(first)) == [
        "corpus.json", "heldout.bin", "heldout.index.bin", "train.bin", "train.index.bin",
    ]  # fmt: skip


def test_adding_documents_moves_no_other_document(tmp_path):
    documents = tiny_documents(200)
    few = build(write_documents(tmp_path / "few.txt", documents[:100]), tmp_path / "a", heldout=0.2)
    many = build(write_documents(tmp_path / "many.txt", documents[::-1]), tmp_path / "b", heldout=0.2)
    for split in ("train", "heldout"):
        assert packed_texts(few, split)
        assert set(packed_texts(few, split)) <= set(packed_texts(many, split))


def test_heldout_share_is_about_what_was_asked(tmp_path):
    out = build(write_documents(tmp_path / "c.txt", tiny_documents(1000)), tmp_path / "out", heldout=0.2)
    assert 150 < len(packed_texts(out, "heldout")) < 250


def test_equal_documents_are_on_the_same_side(tmp_path):
    documents = tiny_documents(40)
    out = build(write_documents(tmp_path / "c.txt", documents + documents), tmp_path / "out", heldout=0.3)
    train, heldout = packed_texts(out), packed_texts(out, "heldout")
    assert train
    assert heldout
    assert not set(train) & set(heldout)
    assert len(train) + len(heldout) == 80


@pytest.mark.parametrize(("heldout", "few"), [(1e-9, "heldout"), (1 - 1e-9, "train")])
def test_tiny_corpus_still_has_both_sides(tmp_path, heldout, few):
    documents = tiny_documents(7)
    out = build(write_documents(tmp_path / "c.txt", documents), tmp_path / "out", heldout=heldout)
    many = "train" if few == "heldout" else "heldout"
    moved, rest = packed_texts(out, few), packed_texts(out, many)
    assert len(moved) == 1
    assert rest == [text for text in documents if text not in moved]
    meta = json.loads((out / "corpus.json").read_text())
    assert meta["splits"][few]["bytes"] == len(moved[0].encode())
    assert meta["splits"][many]["tokens"] == (out / f"{many}.bin").stat().st_size // 2
    # The index was moved along: it is what a build of the rest alone has.
    alone = build(write_documents(tmp_path / "rest.txt", rest), tmp_path / "alone")
    assert (out / f"{many}.index.bin").read_bytes() == (alone / "train.index.bin").read_bytes()
    assert (out / f"{many}.bin").read_bytes() == (alone / "train.bin").read_bytes()


def test_one_document_with_heldout_says_what_to_do(tmp_path):
    error = failure(write_documents(tmp_path / "c.txt", ["only one"]), tmp_path / "out", heldout=0.02)
    assert "one document" in error.message
    assert "heldout: 0" in error.hint


def test_limit_counts_utf8_bytes_and_cuts_the_last_document_at_a_character(tmp_path):
    raw = write_documents(tmp_path / "c.txt", ["äöü" * 10, "ß" * 100])
    out = build(raw, tmp_path / "out", limit=71)
    assert packed_texts(out) == ["äöü" * 10, "ß" * 5]
    meta = json.loads((out / "corpus.json").read_text())
    assert meta["splits"]["train"]["bytes"] == 70
    assert meta["limit_reached"]


def test_limit_does_not_move_the_document_it_cuts(tmp_path):
    documents = tiny_documents(60)
    whole = build(write_documents(tmp_path / "c.txt", documents), tmp_path / "whole", heldout=0.5)
    held = packed_texts(whole, "heldout")
    for count in range(5, 15):
        limit = sum(len(text.encode()) for text in documents[:count]) + 9
        out = build(tmp_path / "c.txt", tmp_path / f"out{count}", heldout=0.5, limit=limit)
        side = "heldout" if documents[count] in held else "train"
        assert documents[count].startswith(packed_texts(out, side)[-1])


def test_nothing_after_the_limit_is_read(tmp_path):
    raw = tmp_path / "c.jsonl"
    raw.write_text('{"text": "first document"}\n{"text": "second"}\nbroken\n')
    assert packed_texts(build(raw, tmp_path / "out", format="jsonl", limit=16)) == ["first document", "se"]


def test_long_document_keeps_exact_bytes_for_every_part(tmp_path):
    text = "\n".join(tiny_documents(200, seed=3))
    raw = tmp_path / "c.jsonl"
    raw.write_text(json.dumps({"text": text}) + "\n" + json.dumps({"text": "short"}))
    out = build(raw, tmp_path / "out", format="jsonl")
    index = np.fromfile(out / "train.index.bin", dtype="<i8").reshape(-1, 3)
    assert len(index) > 3
    assert index[:, 1].sum() == len(text.encode()) + 5
    assert index[:, 2].tolist() == [0] * (len(index) - 1) + [1]
    assert packed_texts(out) == [text, "short"]


def test_blank_corpus_says_what_was_read_and_what_to_check(tmp_path):
    raw = tmp_path / "c.txt"
    raw.write_text("\n\n  \n")
    error = failure(raw, tmp_path / "out", limit=1000)
    assert "empty" in error.message
    assert str(raw) in error.message
    assert "limit 1,000 bytes" in error.message
    assert "'format'" in error.hint


def test_empty_folder_is_an_error(tmp_path):
    (tmp_path / "raw" / ".hidden").mkdir(parents=True)
    (tmp_path / "raw" / ".hidden" / "a.txt").write_text("text")
    assert "holds no files" in failure(tmp_path / "raw", tmp_path / "out").message


def test_folder_is_read_in_the_order_of_its_paths_without_bystanders(tmp_path):
    raw = tmp_path / "raw"
    (raw / "sub").mkdir(parents=True)
    for name, text in (("b.txt", "second"), ("a.txt", "first"), ("sub/c.txt", "third"), ("LICENSE", "not data")):
        (raw / name).write_text(text)
    assert packed_texts(build(raw, tmp_path / "out")) == ["first", "second", "third"]


def test_progress_counts_bytes_and_ends_complete(tmp_path):
    seen = []
    out = build(write_documents(tmp_path / "c.txt", tiny_documents()), tmp_path / "out", report=seen, limit=10_000)
    assert seen[0].phase == "reading"
    assert (seen[0].done, seen[0].total) == (0, 10_000)
    meta = json.loads((out / "corpus.json").read_text())
    assert seen[-1].done == seen[-1].total == meta["splits"]["train"]["bytes"]
    assert {entry.unit for entry in seen} == {"bytes"}


def test_large_vocabulary_takes_four_bytes_per_token(tmp_path):
    data = json.loads((tokenizer_folder() / "tokenizer.json").read_text())
    special = {"content": "<|far|>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    data["model"]["vocab"]["<|far|>"] = 70_000
    data["added_tokens"].append({"id": 70_000, "special": True, **special})
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(data))
    raw = write_documents(tmp_path / "c.txt", ["a<|far|>"])
    out = build(raw, tmp_path / "out", tokenizer=folder)
    assert json.loads((out / "corpus.json").read_text())["dtype"] == "<u4"
    assert np.fromfile(out / "train.bin", dtype="<u4").tolist()[-2:] == [70_000, 0]


@pytest.mark.parametrize("eos", ["z", {"content": "z", "special": True}])
def test_separator_is_the_eos_token_without_endoftext(tmp_path, eos):
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    text = (tokenizer_folder() / "tokenizer.json").read_text().replace(SEPARATOR, "<other>")
    (folder / "tokenizer.json").write_text(text)
    raw = write_documents(tmp_path / "c.txt", ["a"])
    error = failure(raw, tmp_path / "none", tokenizer=folder)
    assert "no separator token for documents" in error.message
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": eos}))
    out = build(raw, tmp_path / "out", tokenizer=folder)
    z = json.loads(text)["model"]["vocab"]["z"]
    assert json.loads((out / "corpus.json").read_text())["separator"] == z


def test_tokenizer_that_truncates_does_not_truncate_the_corpus(tmp_path):
    data = json.loads((tokenizer_folder() / "tokenizer.json").read_text())
    data["truncation"] = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(data))
    raw = write_documents(tmp_path / "c.txt", tiny_documents(3))
    assert packed_texts(build(raw, tmp_path / "out", tokenizer=folder)) == tiny_documents(3)


@pytest.mark.parametrize("content", [None, "{broken", '{"model": 3}'])
def test_missing_or_broken_tokenizer_is_a_clear_error(tmp_path, content):
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    if content is not None:
        (folder / "tokenizer.json").write_text(content)
    raw = write_documents(tmp_path / "c.txt", ["a"])
    assert "tokenizer.json" in failure(raw, tmp_path / "out", tokenizer=folder).message


def test_the_step_imports_no_torch():
    code = "import sys, colbuild.ops.corpus.build, colbuild.train.corpus.packing; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_long_document_is_encoded_a_batch_at_a_time(monkeypatch):
    sizes = []

    class Counting:
        def encode_batch_fast(self, parts, **_):
            sizes.append(sum(map(len, parts)))
            return [Tokenizer.from_file(str(tokenizer_folder() / "tokenizer.json")).encode("a") for _ in parts]

    vocabulary = replace(load_vocabulary(tokenizer_folder()), tokenizer=Counting())
    (batch,) = tokenise([Document("x " * (1 << 20), 1 << 21, 0.5)], vocabulary)
    assert len(batch[0].parts) == 129
    assert len(sizes) == 3
    assert max(sizes) <= 1 << 20
