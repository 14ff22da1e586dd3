"""Packages of models whose texts begin with a token: samples, prompts and measurements begin as transformers' do."""

from __future__ import annotations

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from colbuild.arch.files.tokenizer_file import load_tokenizer
from colbuild.export.package.parity import OPENING, parity_prompts
from colbuild.export.runtime import running, trial
from colbuild.export.runtime.running import generate, open_package
from colbuild.export.runtime.session import generate_tokens
from tests.export.helpers import build, manifest
from tests.helpers.beginnings import beginning_with


def test_a_package_writes_what_transformers_writes_from_the_tokenizers_ids(tiny_model, tmp_path, monkeypatch):
    folder = beginning_with(tiny_model, tmp_path / "model")
    package = build(folder, tmp_path / "package", precision="fp32")
    theirs = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32)

    def written(text, count):
        ids = torch.tensor([theirs(text)["input_ids"]])
        found = model.generate(ids, do_sample=False, max_new_tokens=count, eos_token_id=None, pad_token_id=0)
        return found[0, ids.shape[1] :].tolist()

    sample = manifest(package)["sample"]
    assert sample["prompt"] == theirs(OPENING)["input_ids"]
    assert sample["tokens"] == written(OPENING, len(sample["tokens"]))
    opened = open_package(package)
    fed: list[list[int]] = []

    def watched(decoder, prompt, choose, most):
        fed.append(list(prompt))
        return generate_tokens(decoder, prompt, choose, most)

    monkeypatch.setattr(running, "generate_tokens", watched)
    answer = "".join(generate(opened, "Ada builds", max_tokens=6, chat=False))
    assert fed == [theirs("Ada builds")["input_ids"]]
    assert answer == theirs.decode(written("Ada builds", 6))
    "".join(generate(opened, "", max_tokens=2, chat=False))
    assert fed[1] == theirs("")["input_ids"]
    # A chat template writes the special tokens itself.
    "".join(generate(opened, "Ada builds", max_tokens=2))
    assert fed[2] == theirs("user: Ada builds\nassistant: ", add_special_tokens=False)["input_ids"]


def test_every_prompt_of_a_comparison_begins_with_it(tiny_model, tmp_path):
    tokenizer = load_tokenizer(beginning_with(tiny_model, tmp_path / "model") / "tokenizer.json")
    begin = tokenizer.encode("").ids[0]
    for prompt in parity_prompts(512, 64, tokenizer):
        assert prompt.ids.shape[1] <= 64
        assert all(row[real][0] == begin for row, real in zip(prompt.ids, prompt.real, strict=True))


def test_a_bench_begins_its_prompt_with_it(tiny_model, tmp_path, monkeypatch):
    package = build(beginning_with(tiny_model, tmp_path / "model"), tmp_path / "package", precision="fp32")
    fed: list[list[int]] = []

    def watched(decoder, prompt, choose, most):
        fed.append(list(prompt))
        return generate_tokens(decoder, prompt, choose, most)

    monkeypatch.setattr(trial, "generate_tokens", watched)
    # What `bench` runs in a process of its own.
    [measured] = trial.measured(lambda: None, str(package), 1, 16, 4)
    begin = load_tokenizer(package / "tokenizer.json").encode("").ids
    assert measured["prompt_tokens"] == len(fed[-1]) == 16
    assert {tuple(ids[:1]) for ids in fed} == {tuple(begin)}
