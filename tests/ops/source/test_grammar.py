from __future__ import annotations

import pytest

from colbuild.spec.sources.grammar import check_source, parse_source
from colbuild.spec.sources.source_kinds import HubSource, LocalSource, PackageSource, PyPISource


@pytest.mark.parametrize(
    ("text", "source", "name"),
    [
        ("./models/tiny/", LocalSource("models/tiny"), "tiny"),
        ("/data/./x.gguf", LocalSource("/data/x.gguf"), "x.gguf"),
        ("pkg://some.package/data/x.gguf", PackageSource("some.package", "data/x.gguf"), "x.gguf"),
        ("pypi://my-model==1.2.3rc1/my_model/x.gguf", PyPISource("my-model", "1.2.3rc1", "my_model/x.gguf"), "x.gguf"),
        ("hf://org/name", HubSource("model", "org/name"), "name"),
        ("hf://org/name@v1.0", HubSource("model", "org/name", "v1.0"), "name"),
        ("hf://org/name@refs/pr/3/x.gguf", HubSource("model", "org/name", "refs/pr/3", "x.gguf"), "x.gguf"),
        ("hf://org/name@feature%2Fx", HubSource("model", "org/name", "feature/x"), "name"),
        ("hf://org/name/a@b.gguf", HubSource("model", "org/name", "main", "a@b.gguf"), "a@b.gguf"),
        ("hf://datasets/org/name@v1/d/x.txt", HubSource("dataset", "org/name", "v1", "d/x.txt"), "x.txt"),
    ],
)
def test_every_kind_of_source_is_read(text: str, source: object, name: str) -> None:
    parsed = parse_source(text)
    assert parsed == source
    assert parsed.file_name == name
    assert check_source(text) == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "a source is needed"),
        ("models/tiny", "did you mean './models/tiny'"),
        ("../elsewhere", "absolute path"),
        ("./a/../../b", "absolute path"),
        ("/a/..", "absolute path"),
        ("~/models", "'~' is not expanded"),
        (".\\models", "no backslashes"),
        ("./", "names no file"),
        ("https://example.org/x.gguf", "download the file"),
        ("file:///x", "write '/x'"),
        ("HF://org/name", "did you mean 'hf://org/name'"),
        ("pkg://package", "a file is needed"),
        ("pkg://not-a-name/x", "import name"),
        ("pkg://package/../x", "no empty part, '.' or '..'"),
        ("pypi://name/x", "exact version"),
        ("pypi://name>=1.0/x", "exact version"),
        ("pypi://name==1.*/x", "exact version"),
        ("pypi://name==1.0", "a file is needed"),
        ("pypi://name==1.0/a//b", "no empty part"),
        ("pypi://==1.0/a", "name of a distribution"),
        ("hf://name", "repository's name"),
        ("hf://org/name@", "branch, tag or commit"),
        ("hf://org/name@main/", "a file is needed"),
        ("hf://org/name@main/../x", "no empty part"),
        ("./a\nb", "control characters"),
        (" ./a", "spaces around"),
    ],
)
def test_what_is_no_source_is_refused_with_what_was_expected(text: str, says: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_source(text)
    assert says in str(caught.value)
