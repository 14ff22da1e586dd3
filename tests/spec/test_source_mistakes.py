"""What people write for a source that is none: told what they meant, at the place in the spec."""

from __future__ import annotations

import pytest

from colbuild.spec.sources.grammar import check_data_source, check_source
from tests.helpers.project import replace_in

PAGE = "https://huggingface.co"
MEANT = {
    "meta-llama/Llama-3.2-1B": "did you mean 'hf://meta-llama/Llama-3.2-1B' or the path './meta-llama/Llama-3.2-1B'?",
    "org/name/x.gguf": "did you mean 'hf://org/name/x.gguf' or the path './org/name/x.gguf'?",
    "org/name@v1.0/x.gguf": "did you mean 'hf://org/name@v1.0/x.gguf'?",
    "gpt2": "did you mean 'hf://openai-community/gpt2' or the path './gpt2'?",
    "hf://gpt2": "did you mean 'hf://openai-community/gpt2'?",
    "tiny": "a path starts with './' (did you mean './tiny'?), a name on the hub is hf://org/name@revision[/file]",
    "data/train.txt": "a path starts with './' (did you mean './data/train.txt'?) or with '/'",
    "models/deep/er": "did you mean './models/deep/er'?",
    f"{PAGE}/org/name": "write 'hf://org/name'",
    f"{PAGE}/org/name/tree/v1": "write 'hf://org/name@v1'",
    f"{PAGE}/org/name/tree/main/sub/folder": "write 'hf://org/name@main'",
    f"{PAGE}/org/name/blob/main/sub/x.gguf?download=true": "write 'hf://org/name@main/sub/x.gguf'",
    f"{PAGE}/org/name/resolve/refs%2Fpr%2F3/x.gguf": "write 'hf://org/name@refs/pr/3/x.gguf'",
    f"{PAGE}/org/name.git": "write 'hf://org/name'",
    f"{PAGE}/gpt2": "write 'hf://openai-community/gpt2'",
    f"{PAGE}/datasets/org/name/tree/main": "write 'hf://datasets/org/name@main'",
    "huggingface.co/org/name": "write 'hf://org/name'",
    "hf.co/org/name-GGUF:Q4_K_M": "write 'hf://org/name-GGUF/FILE.gguf'",
    f"{PAGE}/spaces/org/name": "write hf://org/name@revision[/file]",
    f"hf://{PAGE}/org/name": "write 'hf://org/name'",
    "hf://org/name/tree/main": "write 'hf://org/name@main'",
    "hf://org/name/blob/main/x.gguf": "write 'hf://org/name@main/x.gguf'",
    "hf://org/name:Q4_K_M": "name the file: hf://org/name@main/FILE.gguf",
    "hf://models/org/name": "write hf://org/name@revision[/file]",
    "hf:org/name": "did you mean 'hf://org/name'?",
    "hf:/org/name": "did you mean 'hf://org/name'?",
    "HF://org/name": "did you mean 'hf://org/name'?",
    "huggingface://org/name": "did you mean 'hf://org/name'?",
    "pypi:name==1.0/x": "did you mean 'pypi://name==1.0/x'?",
    "https://example.org/a/x.gguf": "download the file and name it by its path, such as './x.gguf'",
    "s3://bucket/x.txt": "such as './x.txt'",
    "git@github.com:org/repo.git": "clone it (with git lfs), and write './repo'",
    "https://github.com/org/repo.git": "clone it (with git lfs), and write './repo'",
    "git+https://github.com/org/repo": "clone it (with git lfs), and write './repo'",
    "~/models": "write the absolute path, here '/home/ada/models'",
    "file:///data/x.gguf": "write '/data/x.gguf'",
    "file://./x.gguf": "write './x.gguf'",
    r"C:\models\tiny": "under WSL for example '/mnt/c/models/tiny'",
    "D:/models/tiny": "under WSL for example '/mnt/d/models/tiny'",
    r"\\server\share": "is a Windows path",
    r".\models\tiny": "write '/' between the parts of a path, as in './models/tiny'",
    r"models\tiny": "as in './models/tiny'",
}
TEXT = {
    "Salesforce/wikitext": "did you mean 'hf://datasets/Salesforce/wikitext' or the path './Salesforce/wikitext'?",
    "wikitext": "did you mean 'hf://datasets/Salesforce/wikitext' or the path './wikitext'?",
    "org/name@v1": "did you mean 'hf://datasets/org/name@v1'?",
    "datasets/org/name": "did you mean 'hf://datasets/org/name'?",
    f"{PAGE}/datasets/org/name/blob/main/a.txt": "write 'hf://datasets/org/name@main/a.txt'",
    "hf://datasets/org/name/resolve/main/a.txt": "write 'hf://datasets/org/name@main/a.txt'",
    "hf://datasets/wikitext": "did you mean 'hf://datasets/Salesforce/wikitext'?",
    "tiny": "a name on the hub is hf://datasets/org/name@revision[/file]",
}


def told(check, text: str) -> tuple[str, str]:
    """Message and hint, as the spec's errors take them apart."""
    with pytest.raises(ValueError) as caught:
        check(text)
    message, _, hint = str(caught.value).partition("; ")
    return message, hint


@pytest.mark.parametrize(("text", "hint"), MEANT.items(), ids=MEANT)
def test_what_was_meant_for_a_model_is_the_hint(text, hint, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    message, found = told(check_source, text)
    assert hint in f"{message}; {found}"
    assert found, "there is a hint"


@pytest.mark.parametrize(("text", "hint"), TEXT.items(), ids=TEXT)
def test_what_was_meant_for_text_is_a_dataset(text, hint):
    assert hint in told(check_data_source, text)[1]


def test_pages_of_the_hub_that_the_client_is_told_to_use_are_known(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example.org")
    assert told(check_source, "https://hub.example.org/org/name")[1] == "write 'hf://org/name'"


@pytest.mark.parametrize("text", ["./repo.git", "/data/hf:x", "./gpt2", "./C:/x", "//data/x", "./~x", "hf://org/tree"])
def test_paths_that_only_look_like_mistakes_are_paths(text):
    assert check_source(text) == text == check_data_source(text)


@pytest.mark.parametrize(
    ("old", "new", "place", "hint"),
    [
        ("source: ./.tiny/ansnet", "source: gpt2", "9:11", "did you mean 'hf://openai-community/gpt2' or the path"),
        (
            "train: {source: ./.tiny/corpus.txt",
            "train: {source: Salesforce/wikitext",
            "13:19",
            "did you mean 'hf://datasets/Salesforce/wikitext' or the path",
        ),
    ],
)
def test_the_hint_stands_below_the_line_of_the_spec(project, colbuild, old, new, place, hint):
    replace_in(project / "specs/tiny.yaml", old, new)
    ran = colbuild("plan", "specs/tiny.yaml")
    assert ran.code == 3
    assert f"specs/tiny.yaml:{place}: 'source': '{new.split()[-1].strip('{')}' is not a source" in ran.err
    assert f"= {hint}" in ran.err
