"""A tokenizer from outside is tried in a process of its own before it is used in this one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from colbuild.arch.files.tokenizer_file import load_tokenizer
from colbuild.arch.files.tokenizer_trial import try_tokenizer
from colbuild.errors import BuildError
from tests.helpers.tiny import train_byte_level
from tests.helpers.toy_package import write_tokenizer


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("colbuild.confined._has_one_thread", lambda: True)
    monkeypatch.setattr("colbuild.arch.files.tokenizer_trial.TOKENIZER_SECONDS", 1.0)
    write_tokenizer(tmp_path / "tokenizer.json")
    return tmp_path / "tokenizer.json"


def change(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_an_honest_tokenizer_passes(path: Path):
    try_tokenizer(path)
    train_byte_level(400).save(str(path))
    try_tokenizer(path)


def test_a_panic_is_told(path: Path):
    change(path, normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAAAAAAAAAAAAAA"})
    with pytest.raises(BuildError, match=r"the tokenizer .*tokenizer.json cannot be used: PanicException"):
        try_tokenizer(path)


def test_a_text_without_end_is_told(path: Path):
    double = {"type": "Replace", "pattern": {"String": "e"}, "content": "ee"}
    change(path, normalizer={"type": "Sequence", "normalizers": [double] * 64})
    with pytest.raises(BuildError, match=r"takes longer than|needs more than|ends the process"):
        try_tokenizer(path)


def test_an_expression_that_takes_for_ever_is_told(path: Path):
    split = {"type": "Split", "pattern": {"Regex": r"(a|a|b)+c"}, "behavior": "Isolated", "invert": False}
    change(path, pre_tokenizer=split)
    with pytest.raises(BuildError, match=r"takes longer than|PanicException"):
        try_tokenizer(path)


def test_what_is_no_tokenizer_is_told_where_it_is_loaded(path: Path):
    path.write_text("{}")
    try_tokenizer(path)
    with pytest.raises(BuildError, match="cannot be read"):
        load_tokenizer(path)


def test_a_source_is_tried_before_it_is_read(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from colbuild.ops.source.source_tokenizer import copy_tokenizer

    change(path, normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAAAAAAAAAAAAAA"})
    (tmp_path / "output").mkdir()
    with pytest.raises(BuildError, match="PanicException"):
        copy_tokenizer(tmp_path, tmp_path / "output")
